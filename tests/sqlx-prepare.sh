#!/bin/sh
# Refreshes .sqlx/, the answers that the compile-time checked queries are built against: starts a
# throw-away Postgres, applies the migrations, and has the compiler ask it about every query.
# `--check` changes nothing, and fails when .sqlx/ is not fresh.
set -eu
cd "$(dirname "$0")/.."

initdb=$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
  /opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb 2>/dev/null \
  | tail -n 1)
bin=$(dirname "$initdb")
dir=$(mktemp -d)
as_owner() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  chown nobody "$dir"
  as_owner() { setpriv --reuid nobody --regid "$(id -g nobody)" --clear-groups "$@"; }
fi
cleanup() {
  as_owner "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$dir"
}
trap cleanup EXIT
# A superuser runs programs: it is reached through a socket in that directory, which is private, and
# with a password that stands in no list of processes.
PGPASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export PGPASSWORD
(umask 077 && echo "$PGPASSWORD" >"$dir/password")
[ "$(id -u)" != 0 ] || chown nobody "$dir/password"
as_owner "$bin/initdb" -D "$dir/data" -U postgres -A scram-sha-256 --pwfile "$dir/password" -N \
  --no-locale -E UTF8 >/dev/null
as_owner "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-c listen_addresses= -k $dir" start \
  >/dev/null
url="postgres://postgres@localhost/postgres?host=$dir"
for file in migrations/*.sql; do
  psql -q -v ON_ERROR_STOP=1 -o /dev/null -f "$file" "$url"
done

mkdir "$dir/sqlx"
touch src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$dir/sqlx" DATABASE_URL="$url" cargo check --lib
if [ "${1-}" = --check ]; then
  diff -r .sqlx "$dir/sqlx" || {
    echo ".sqlx is not what the queries and migrations say; run tests/sqlx-prepare.sh" >&2
    exit 1
  }
else
  mkdir -p .sqlx
  rm -f .sqlx/query-*.json
  cp "$dir"/sqlx/query-*.json .sqlx/
fi
find .sqlx -name 'query-*.json' | wc -l
