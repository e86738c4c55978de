#!/usr/bin/env bash
# Learning curves in a browser, on this machine only.
#
#   local/tensorboard.sh [DIR] [PORT]     an experiment, or a folder of some (exp); 6006

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."
. ./path.sh || exit 1
dir=${1:-exp}
if [ $# -gt 0 ]; then cd "$called_from"; fi
if [ ! -d "$dir" ]; then
  echo "local/tensorboard.sh: no folder $dir; train something first (./run.sh)" >&2
  exit 1
fi
exec tensorboard --logdir "$dir" --host localhost --port "${2:-6006}"
