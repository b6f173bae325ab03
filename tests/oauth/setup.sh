#!/bin/sh
# Makes a Python environment with Authlib below target/, and prints its interpreter. Whoever comes
# second waits for the first.
set -eu
cd "$(dirname "$0")/../.."
dir=target/oauth-client
mkdir -p target
exec 9>target/oauth-client.lock
flock 9
if [ ! -f "$dir/ready" ]; then
  rm -rf "$dir"
  python3 -m venv "$dir" >&2
  "$dir/bin/pip" install -q --disable-pip-version-check -r tests/oauth/requirements.txt >&2
  touch "$dir/ready"
fi
echo "$PWD/$dir/bin/python"
