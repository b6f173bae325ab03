#!/usr/bin/env bash
# Every check, in the order in which they fail fastest; what the tests need is installed if it is
# missing. `--long` runs the long variants of the tests too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for argument in "$@"; do
  case "$argument" in
    --long) export GATEPOST_LONG=1 ;;
    *) echo "usage: tests/run.sh [--long]" >&2; exit 2 ;;
  esac
done
# The queries are checked against .sqlx; nothing but the refresh check may ask a database.
export SQLX_OFFLINE=true
unset DATABASE_URL

step() {
  printf '\n== [%4d s] %s\n' "$SECONDS" "$1"
  shift
  "$@"
}

find_initdb() {
  local path
  for path in "$(command -v initdb)" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
    /opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb; do
    [ ! -x "$path" ] || { echo "$path"; return; }
  done
  return 1
}

# nginx, Caddy, HAProxy: they stand before the gateway in the recipes.
find_program() {
  PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/bin" command -v "$1"
}

dnf_names() {
  printf '%s\n' "$@" | sed 's/^postgresql$/postgresql-server/; s/^libc6-dev$/glibc-devel/; s/^python3-venv$/python3/'
}

# The package manager's words for what is missing. Names differ from one to the next.
install() {
  local sudo=() manager
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  for manager in apt-get dnf brew ""; do
    [ -z "$manager" ] || ! command -v "$manager" >/dev/null || break
  done
  case "$manager" in
    apt-get)
      "${sudo[@]}" apt-get update -qq </dev/null &&
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
          apt-get install -y -qq --no-install-recommends "$@" </dev/null
      ;;
    dnf) "${sudo[@]}" dnf install -y -q $(dnf_names "$@") </dev/null ;;
    brew) brew install -q "$@" </dev/null ;;
    *) false ;;
  esac || {
    echo "cannot install: $*" >&2
    echo "install the Postgres server binaries (initdb), nginx, Caddy, HAProxy, Python 3 and a C compiler, then run" \
      "this again" >&2
    exit 1
  }
}

needs() {
  local missing=() program
  { find_initdb && command -v psql; } >/dev/null || missing+=(postgresql)
  for program in nginx caddy haproxy; do
    find_program "$program" >/dev/null || missing+=("$program")
  done
  # For the OAuth client of another language.
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
  # For the shim between the gateway and its disk.
  [ "$(uname)" != Linux ] || cc -E -x c - <<<"#include <stdlib.h>" >/dev/null 2>&1 ||
    missing+=(gcc libc6-dev)
  [ ${#missing[@]} = 0 ] || install "${missing[@]}"
  find_initdb
  find_program nginx
  find_program caddy
  find_program haproxy
}

# Each reader of bytes from disk or network for a minute: all of them by changes to good inputs, and
# those that another crate can reach by coverage too, where cargo-fuzz and nightly are.
fuzz() {
  local target
  GATEPOST_FUZZ_SECONDS=60 cargo test --lib --features otlp -- any_bytes_ --nocapture
  GATEPOST_FUZZ_SECONDS=60 cargo test --test suite --features otlp -- fuzz::no_ --nocapture
  if cargo +nightly fuzz --version >/dev/null 2>&1; then
    for target in fuzz/fuzz_targets/*.rs; do
      cargo +nightly fuzz run "$(basename "$target" .rs)" -- -max_total_time=60 -malloc_limit_mb=1
    done
  fi
}

rustdoc() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features otlp; }

step "what the tests need" needs
step "format" cargo fmt --check
step "queries are those in .sqlx" tests/sqlx-prepare.sh --check
# What is built when nobody asks for more is looked at; what is tested is built once, with all of it.
step "clippy" cargo clippy -- -D warnings
step "clippy, with every feature" cargo clippy --all-targets --features otlp -- -D warnings
step "documentation" rustdoc
if command -v cargo-deny >/dev/null; then
  step "dependencies" cargo deny --all-features check
fi
step "unit tests" cargo test --lib --bins --features otlp
if grep -rqE '^ *//[/!] ```' src; then
  step "examples in the documentation" cargo test --doc --features otlp
fi
step "tidy" cargo test --test tidy --features otlp
step "the benchmark harness's own sums" cargo test --test harness --features otlp
step "suite" cargo test --test suite --features otlp
if [ "${GATEPOST_LONG-}" = 1 ]; then
  step "hostile bytes, a minute each" fuzz
fi
