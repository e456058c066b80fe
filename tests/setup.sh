#!/bin/sh
# Makes .venv from uv.lock. Needs nothing but a Debian or Ubuntu machine: what is missing is installed if we may.
set -eu
cd "$(dirname "$0")/.."
UV_VERSION=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' uv.requirements.txt)
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/cinderblock"

say() { printf '%s\n' "$*" >&2; }

find_python() {
  for name in python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return 0
    fi
  done
  return 1
}

if ! PYTHON=$(find_python); then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "Installing Python"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
  fi
  PYTHON=$(find_python) || {
    say "Python 3.11 or newer with its venv module is needed. On Debian or Ubuntu: apt-get install python3 python3-venv"
    exit 1
  }
fi

if command -v uv >/dev/null 2>&1; then
  UV=uv
else
  UV="$CACHE/uv-$UV_VERSION/bin/uv"
  # Another clone may be set up at the same time.
  mkdir -p "$CACHE"
  exec 9>"$CACHE/setup.lock"
  flock 9
  if [ ! -x "$UV" ]; then
    say "Installing uv $UV_VERSION into $CACHE"
    rm -rf "$CACHE/uv-$UV_VERSION"
    "$PYTHON" -m venv "$CACHE/uv-$UV_VERSION"
    "$CACHE/uv-$UV_VERSION/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
      -r uv.requirements.txt
  fi
  exec 9>&-
fi

UV_PYTHON_DOWNLOADS=never UV_NATIVE_TLS=true "$UV" sync --quiet --frozen --compile-bytecode --all-groups --python "$PYTHON"
touch .venv/.ready
