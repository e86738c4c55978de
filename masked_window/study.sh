#!/usr/bin/env bash
# The notes' experiments with windows of eight words, one change at a time: what finds how many words?
#
#   masked_window/study.sh                                        # espeak, one seed: three hours
#   masked_window/study.sh --changes "default dropout0 dropout0.4" --seeds "1 2 3"
#   masked_window/study.sh --corpus mboshi --corpus-dir DIR -- training.epochs=20
#
# Each change and seed is an experiment exp/CORPUS/masked_window/study-CHANGE-seedN. Stopped and started
# again, it goes on where it was. It ends with the table: words of the test sets that are right, percent.
#
# Options:
#   --corpus NAME     espeak (default), or another with times of words
#   --corpus-dir DIR  where the recordings of a published corpus are
#   --changes LIST    of those below (all)
#   --seeds LIST      ("1")
# After "--": field.name=value for all.

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."

corpus=espeak
corpus_dir=
changes="default notes dropout0 dropout0.4 sinusoidal relative none words4 words12 stride3 stride12 skip
  blocks1 blocks4 wide last rare logits decreasing uniform padding left no_times no_spelling"
seeds=1
. utils/parse_options.sh
. ./path.sh || exit 1
case $corpus_dir in "" | /*) ;; *) corpus_dir=$called_from/$corpus_dir ;; esac

change_options() {
  case $1 in
    default) ;;
    dropout*) echo "window_model.dropout=${1#dropout}" ;;
    sinusoidal | relative | none) echo "window_model.positions=$1" ;;
    # As long as the default's windows, for so many words.
    words*) echo "window.words=${1#words} window.frames=$((16 * ${1#words}))" ;;
    # Steps of audio of another length, in windows that last as long.
    stride*) echo "window.frame_stride=${1#stride} window.frames=$((768 / ${1#stride}))" ;;
    skip) echo "window.frame_join=skip" ;;
    blocks*) echo "window_model.num_blocks=${1#blocks}" ;;
    wide) echo "window_model.dim=256" ;;
    last) echo "window_model.predict=last" ;;
    rare) echo "window_loss.weight_power=0.5" ;;
    logits) echo "window_loss.logit_adjustment=1" ;;
    decreasing) echo "masking.schedule=decreasing masking.full=0 masking.share=0.2" ;;
    uniform) echo "masking.full=0" ;;
    padding) echo "window.padding=token" ;;
    left) echo "window.side=left" ;;
    no_times) echo "window_loss.attention=0 window_loss.frames=0" ;;
    no_spelling) echo "window_model.spelling=false" ;;
    # As in the notes: no layers before words attend to audio, one vector a word, padding is a word, and no
    # loss but that of the words.
    notes)
      echo "window_model.audio_layers=0 window_model.spelling=false window.padding=token"
      echo "window_loss.attention=0 window_loss.frames=0 masking.full=1"
      ;;
    *) echo "study.sh: --changes has no '$1'" >&2 && return 1 ;;
  esac
}

# A name that there is not shows itself now, not after hours.
for change in $changes; do change_options "$change"; done >/dev/null

experiments=()
for seed in $seeds; do
  for change in $changes; do
    exp=study-$change-seed$seed
    options=$(change_options "$change")
    # shellcheck disable=SC2086 # several options
    ./run.sh --recipe masked_window --corpus "$corpus" ${corpus_dir:+--corpus-dir "$corpus_dir"} \
      --exp "$exp" --stop-stage 6 -- "training.seed=$seed" $options "$@"
    experiments+=("exp/$corpus/masked_window/$exp")
    python local/results.py "exp/$corpus/masked_window/$exp" >/dev/null
  done
done

if [ ${#experiments[@]} -eq 0 ]; then
  echo "study.sh: --changes and --seeds name no experiment" >&2
  exit 1
fi
columns=
for folder in "${experiments[0]}"/decode_*_window; do
  set=${folder##*/decode_}
  columns+=${set%_window}:masked_words_right,
done
python local/compare.py "${experiments[@]}" --columns "${columns}train_seconds"
