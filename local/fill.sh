#!/usr/bin/env bash
# Fill holes in the text of a Kaldi data directory, or of one audio file, by what is heard.
#
#   local/fill.sh exp/espeak/masked_text/default talk.wav --text holes.txt   # THE ___ IS [?] THERE
#   local/fill.sh exp/espeak/masked_text/default data/mine --doubtful exp/…/align_mine
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

exec python "$root/local/fill.py" "$@"
