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
port=${2:-6006}
if ! [[ $port =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65535)); then
  echo "${0##*/}: '$port' is no port; a port is a number from 1 to 65535" >&2
  exit 1
fi
exec tensorboard --logdir "$dir" --host localhost --port "$port"
