#!/usr/bin/env bash
# utils/make_venv.sh NAME DIR: make or mend the environment NAME (classic, current) in DIR, if there is
# need; path.sh calls it.
#
# DIR/.plateau tells the state: "unfinished …" while DIR is made, at the end the checksum and name of the
# lock, and the environment's place. Whatever is unfinished when we start was interrupted (pip may
# have left half a package that it takes for a whole one), so it is made again from the beginning.

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail

name=$1
venv=$2
mark=$venv/.plateau
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
lock=requirements/$name.txt
if [ "$name" = classic ]; then versions=(3.11); else versions=(3.13 3.12 3.11); fi
. "$root/utils/find_python.sh"

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
  say "torch 2.x and the other packages of requirements/current.in; then: export PLATEAU_VENV=its folder"
  exit 1
fi

# Held until this script and what it started end; so an orphaned pip is waited for as well.
mkdir -p "$(dirname "$venv")"
exec {turn}>"$venv.lock"
if ! flock --nonblock "$turn"; then
  say "another process is setting up $venv; waiting for it"
  flock "$turn"
fi

ready="$(cd "$root" && sha256sum "$lock") $venv"
state=$(cat "$mark" 2>/dev/null || true)
if [ -x "$venv/bin/python" ] && [ "$state" = "$ready" ]; then exit 0; fi
trap finish EXIT
trap 'exit 130' INT

if [ -d "$venv" ] && [ -z "$state" ] && [ -n "$(ls -A "$venv")" ]; then
  say "$venv holds something that is not an environment and that Plateau did not put there"
  say "move it away, or choose another place: export PLATEAU_VENV=DIR"
  exit 1
fi

make_venv() {
  local python wanted
  wanted=$(IFS=/ && echo "CPython ${versions[*]}")
  say "making the environment $name in $venv"
  python=$(find_python "${versions[@]}" || true)
  if [ -z "$python" ] && [ -n "${PYTHON:-}" ]; then
    say "PYTHON=$PYTHON is not a $wanted that runs; the packages of $lock are for that"
    return 1
  fi
  mkdir -p "$venv"
  echo "unfinished $lock" >"$mark"
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name .plateau -exec rm -rf {} +
  if command -v uv >/dev/null; then
    python=${python:-cpython@${versions[0]}}
    if ! uv venv --quiet --no-project --allow-existing --python "$python" "$venv"; then
      say "uv found no $wanted here and could not fetch one; install it, or name one: PYTHON=FILE"
      return 1
    fi
  elif [ -z "$python" ]; then
    say "there is no $wanted here. Install one with venv and headers (on Debian: python${versions[0]}"
    say "python${versions[0]}-venv python${versions[0]}-dev), or uv, which fetches one; or name one: PYTHON=FILE"
    return 1
  elif ! "$python" -m venv "$venv"; then
    say "$python cannot make environments (on Debian: apt-get install $(basename "$python")-venv)"
    return 1
  fi
}

# Environments know their place, so one that was moved or copied is made anew, as is one of the other
# name.
case "$name $state" in
  "$name "*" $lock $venv" | "classic "*" - $venv") # the second: as it was before there were two
    if [ -x "$venv/bin/python" ]; then
      say "$lock changed: bringing the environment up to date"
      echo "unfinished $lock" >"$mark"
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
# The lock is complete, and so are its hashes: nothing is looked up.
if command -v uv >/dev/null; then
  install=(uv pip install --python "$venv/bin/python")
  quiet=(--quiet)
else
  install=("$venv/bin/python" -m pip --disable-pip-version-check install)
  quiet=(--quiet --quiet) # errors only
fi
# First the locked pip: a newer one than classic's refuses the names of k2's wheels.
"${install[@]}" "${quiet[@]}" --require-hashes -r <(grep '^pip==' "$root/$lock") >&2
# Where no GPU is and pip is offered a torch without CUDA: that, and no CUDA.
with_cuda='^#'
without=$(sed -n 's/^# without a GPU: //p' "$root/$lock")
if [ -n "$without" ] && ! nvidia-smi >/dev/null 2>&1 &&
  "${install[@]}" "${quiet[@]}" --no-deps --require-hashes -r <(echo "$without") >/dev/null 2>&1
then
  say "no GPU here: torch without CUDA"
  with_cuda='^(torch==|triton==|nvidia-|cuda-)'
fi
if [ -t 2 ]; then quiet=(); fi
"${install[@]}" "${quiet[@]}" --no-deps --require-hashes \
  -r <(grep -vE "$with_cuda" "$root/$lock") >&2

# Status 1: it cannot be built here, which was said; features then come from kaldi-native-fbank.
"$venv/bin/python" "$root/utils/build_kaldifeat.py" || [ $? -eq 1 ]

echo "$ready" >"$mark.new"
mv "$mark.new" "$mark"
say "the environment is ready"
