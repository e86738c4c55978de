#!/usr/bin/env bash
# All toy experiments: the table of claims, and a report with pictures.
#
#   toy_peaky/run.sh                     exp/toy_peaky/report/index.html, exp/toy_peaky/claims.json
#   toy_peaky/run.sh --report DIR        DIR/report/index.html, DIR/claims.json
#   toy_peaky/run.sh --jobs N            in N processes (number of cores)
#
# toy_peaky/run.py runs a single experiment: --list names them.

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname "$0")/.." && pwd)
. "$root/path.sh" || exit 1

exec python "$root/toy_peaky/run.py" --all --report "$root/exp/toy_peaky" "$@"
