#!/usr/bin/env bash
# Full sum → align → cross entropy along the alignment → full sum again, as one command.
#
#   transducer/pipeline.sh --corpus yesno --corpus-dir DIR
#
# Zeyer et al. 2020, "A new training pipeline for an improved neural transducer" (arXiv:2005.09319).
# Three experiments exp/CORPUS/transducer/NAME-{full-sum,viterbi,retrain}; each is decoded. Finished
# parts are not done again.
#
# Options:
#   --corpus NAME     espeak (default), or another
#   --corpus-dir DIR  where the recordings of a published corpus are
#   --exp NAME        what the experiments' names begin with (pipeline)
#   --more-epochs N   of the second and third part (as many as the first)
# After "--": field.name=value for all three.

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."

corpus=espeak
corpus_dir=
exp=pipeline
more_epochs=
. utils/parse_options.sh
. utils/stages.sh
if [ -n "$more_epochs" ]; then check_number --more-epochs "$more_epochs" 1 9999; fi
. ./path.sh || exit 1
case $corpus_dir in "" | /*) ;; *) corpus_dir=$called_from/$corpus_dir ;; esac
dir=exp/$corpus/transducer/$exp

part() {
  local name=$1
  shift
  ./run.sh --recipe transducer --corpus "$corpus" ${corpus_dir:+--corpus-dir "$corpus_dir"} \
    --exp "$exp-$name" -- "$@"
}

more=()
if [ -n "$more_epochs" ]; then more=("training.epochs=$more_epochs"); fi

part full-sum "$@"
# Of the training set and, where there is one, the development set.
roles=$(python local/sets.py "data/$corpus" "$dir-full-sum/config.yaml")
read -r dev <<<"$roles"
alignment=$dir-full-sum/align_train/frames.txt
if [ ! -f "$alignment" ] || [ "$dir-full-sum/checkpoints/averaged.safetensors" -nt "$alignment" ]; then
  python transducer/align.py "$dir-full-sum" --sets "train${dev:+,$dev}"
fi
files=$alignment
if [ -n "$dev" ]; then files=$files,$dir-full-sum/align_$dev/frames.txt; fi
part viterbi "$@" "${more[@]}" loss.kind=viterbi loss.aligner=file "loss.alignment=$files" \
  loss.after_steps=0 "init_from=$dir-full-sum"
part retrain "$@" "${more[@]}" loss.after_steps=0 "init_from=$dir-viterbi"
