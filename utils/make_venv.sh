#!/usr/bin/env bash
# utils/make_venv.sh DIR: make or mend the environment in DIR. path.sh calls it when there is need.
#
# DIR/.plateau tells the state: "unfinished" while DIR is made, at the end the environment's place
# and the checksum of the requirements. Whatever is unfinished when we start was interrupted (pip may
# have left half a package that it takes for a whole one), so it is made again from the beginning.

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail

venv=$1
mark=$venv/.plateau
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

say() { echo "path.sh: $*" >&2; }

finish() {
  local status=$?
  if [ $status -eq 0 ] || [ $status -eq 130 ]; then return; fi
  say "the environment in $venv could not be set up; what the doctor sees:"
  local python
  for python in "$venv/bin/python" python3; do
    if command -v "$python" >/dev/null; then
      "$python" "$root/local/doctor.py" "$venv/bin/python" >&2 || true
      break
    fi
  done
  say "when what is wrong is mended, run the same again"
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  say "the locked packages are for Linux x86-64, this is $(uname -sm). Make an environment with"
  say "torch 2.x and the other packages of requirements.in; then: export PLATEAU_VENV=its folder"
  exit 1
fi

# Held until this script and what it started end; so an orphaned pip is waited for as well.
mkdir -p "$(dirname "$venv")"
exec {lock}>"$venv.lock"
if ! flock --nonblock "$lock"; then
  say "another process is setting up $venv; waiting for it"
  flock "$lock"
fi

ready="$(sha256sum <"$root/requirements.txt") $venv"
state=$(cat "$mark" 2>/dev/null || true)
if [ -x "$venv/bin/python" ] && [ "$state" = "$ready" ]; then exit 0; fi
trap finish EXIT
trap 'exit 130' INT

if [ -d "$venv" ] && [ -z "$state" ] && [ -n "$(ls -A "$venv")" ]; then
  say "$venv holds something that is not an environment and that Plateau did not put there"
  say "move it away, or choose another place: export PLATEAU_VENV=DIR"
  exit 1
fi

is_cpython311() {
  "$1" -c 'import sys; v = sys.version_info; c = sys.implementation.name == "cpython"
sys.exit(not c or v[:2] != (3, 11))' 2>/dev/null
}

make_venv() {
  local python=${PYTHON:-python3.11}
  say "making the environment in $venv"
  if [ -n "${PYTHON:-}" ] && ! is_cpython311 "$python"; then
    say "PYTHON=$PYTHON is not a CPython 3.11 that runs; the packages are locked for 3.11"
    return 1
  fi
  mkdir -p "$venv"
  echo unfinished >"$mark"
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name .plateau -exec rm -rf {} +
  if command -v uv >/dev/null; then
    if ! uv venv --quiet --no-project --allow-existing --python "${PYTHON:-cpython@3.11}" "$venv"
    then
      say "uv found no CPython 3.11 here and could not fetch one; install it, or name one: PYTHON=FILE"
      return 1
    fi
  elif ! is_cpython311 "$python"; then
    say "there is no $python here. Install CPython 3.11 with venv and headers (on Debian: python3.11"
    say "python3.11-venv python3.11-dev), or uv, which fetches one; or name one: PYTHON=FILE"
    return 1
  elif ! "$python" -m venv "$venv"; then
    say "$python cannot make environments (on Debian: apt-get install python3.11-venv)"
    return 1
  fi
}

# Environments know their place, so one that was moved or copied is made anew.
case $state in
  *" $venv")
    if [ -x "$venv/bin/python" ]; then
      say "requirements.txt changed: bringing the environment up to date"
      echo unfinished >"$mark"
    else
      make_venv
    fi
    ;;
  *) make_venv ;;
esac

# Settings of pip's that send packages elsewhere. Variables count for us only as far as they do not;
# settings in files are the user's, so they are named.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_DRY_RUN PIP_NO_DEPS
if ! command -v uv >/dev/null; then
  elsewhere=$("$venv/bin/python" -m pip config list | grep -E '\.(target|prefix|root|user)=' || true)
  if [ -n "$elsewhere" ]; then
    say "pip's settings send packages elsewhere: $elsewhere"
    say "take that away: $venv/bin/python -m pip config unset ${elsewhere%%=*}"
    exit 1
  fi
fi

say "installing packages: a minute or two, and on first use on this machine 2 GB to download"
if command -v uv >/dev/null; then
  install=(uv pip install --python "$venv/bin/python")
  quiet=(--quiet)
else
  install=("$venv/bin/python" -m pip --disable-pip-version-check install)
  quiet=(--quiet --quiet) # errors only
fi
# First the locked pip: a newer one refuses the names of k2's wheels.
"${install[@]}" "${quiet[@]}" --require-hashes -r <(grep '^pip==' "$root/requirements.txt") >&2
if [ -t 2 ]; then quiet=(); fi
"${install[@]}" "${quiet[@]}" --require-hashes -r "$root/requirements.txt" >&2

# Status 1: it cannot be built here, which was said; features then come from Lhotse.
"$venv/bin/python" "$root/utils/build_kaldifeat.py" || [ $? -eq 1 ]

echo "$ready" >"$mark.new"
mv "$mark.new" "$mark"
say "the environment is ready"
