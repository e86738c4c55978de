#!/usr/bin/env bash
# Align a Kaldi data directory, or one audio file, with a trained experiment of either recipe.
#
#   local/align.sh exp/mboshi/conformer_ctc/default data/mboshi/dev
#   local/align.sh exp/espeak/conformer_ctc/default talk.wav --text "what is said there" --out DIR
#
# --help lists the options. Relative paths, those in a wav.scp too, count from where the command is
# called; shell commands in a wav.scp run in the folder that has the experiment's exp/ and data/.

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname "$0")/.." && pwd)
. "$root/path.sh" || exit 1
if [ ! -t 2 ]; then export TQDM_DISABLE=1; fi # progress bars are for terminals

exec python "$root/local/align.py" "$@"
