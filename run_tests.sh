#!/usr/bin/env bash
# All tests: ./run_tests.sh. With arguments only pytest, which gets them: ./run_tests.sh -k ctc

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
cd "$(dirname "$0")"
. ./path.sh

if [ $# -gt 0 ]; then exec pytest "$@"; fi

# Git tells which files are ours, new ones included; without git (a downloaded archive) all are.
shell_files=$(git ls-files --cached --others --exclude-standard '*.sh' .ci/run 2>/dev/null ||
  find . -name '*.sh' -not -path './.venv*')
status=0
ruff check . || status=1
ruff format --check . || status=1
# shellcheck disable=SC2086 # one word per file
shellcheck $shell_files || status=1
# Two processes: tests are small, and torch takes the cores that are left.
OMP_NUM_THREADS=1 pytest --numprocesses 2 || status=1
exit $status
