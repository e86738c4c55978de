#!/usr/bin/env bash
# utils/choose_environment.sh [DIR]: print the environment that fits this machine, classic or current,
# and why. DIR: where the user wants it; one that is there stays what it is. path.sh calls it.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/utils/find_python.sh"

case ${PLATEAU_ENV:-} in
  '') ;;
  classic | current)
    echo "$PLATEAU_ENV (PLATEAU_ENV)"
    exit
    ;;
  *)
    echo "path.sh: PLATEAU_ENV is '$PLATEAU_ENV'; it must be classic or current, or not set" >&2
    exit 1
    ;;
esac

made=$(cat "${1:-$root}/.plateau" 2>/dev/null || true)
case ${1:+$made} in
  '' | unfinished*) ;;
  *requirements/current.txt*)
    echo "current (as $1 was made)"
    exit
    ;;
  *)
    echo "classic (as $1 was made)"
    exit
    ;;
esac

# torch 1.13 has code for GPUs up to 8.6, which those up to 8.9 can run.
newest=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
  grep -E '^[0-9]+\.[0-9]+$' | sort -n | tail -n 1 || true)
if [ "${newest%%.*}" -ge 9 ] 2>/dev/null; then
  echo "current (a GPU of compute capability $newest, which torch 1.13 has no code for)"
elif [ -x "$root/.venv/bin/python" ] || find_python 3.11 >/dev/null; then
  echo "classic (CPython 3.11 is here, and no GPU that torch 1.13 has no code for)"
elif [ -n "${PYTHON:-}" ]; then
  echo "current (PYTHON=$PYTHON is not a CPython 3.11)"
else
  echo "current (there is no CPython 3.11 here)"
fi
