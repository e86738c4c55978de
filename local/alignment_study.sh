#!/usr/bin/env bash
# The alignment study: what losses, priors and topologies do to the times of words, beside WER.
#
#   local/alignment_study.sh                                        # espeak, three seeds: a day
#   local/alignment_study.sh --seeds 1 --settings "ctc prior0.3" -- training.epochs=6
#   local/alignment_study.sh --corpus fsdd --corpus-dir DIR --encoders conformer
#
# Each setting, encoder and seed is an experiment exp/CORPUS/RECIPE/study-ENCODER-SETTING-seedN.
# Stopped and started again, it goes on where it was. It ends with the table.
#
# Options:
#   --corpus NAME     espeak (default), or another
#   --corpus-dir DIR  where the recordings of a published corpus are
#   --encoders LIST   of conformer, blstm ("conformer blstm")
#   --settings LIST   of those below (all)
#   --seeds LIST      ("1 2 3")
# After "--": field.name=value for all.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."

corpus=espeak
corpus_dir=
encoders="conformer blstm"
settings="ctc prior0.1 prior0.3 prior0.5 viterbi delay silence rnnt rna"
seeds="1 2 3"
. utils/parse_options.sh
. ./path.sh || exit 1
case $corpus_dir in "" | /*) ;; *) corpus_dir=$called_from/$corpus_dir ;; esac

# Frames of 20 ms for both encoders.
encoder_options() {
  echo "encoder.kind=$1 encoder.$1.subsampling=2"
  if [ "$1" = blstm ]; then echo "encoder.blstm.dim=128"; fi
  if [ "$1 $2" = "blstm transducer" ]; then echo "loss.ctc_layers=[3]"; fi
}

# The recipe of a setting, and its options.
setting_options() {
  case $1 in
    ctc) echo conformer_ctc ;;
    prior*) echo "conformer_ctc loss.prior.estimator=moving_average loss.prior.scale=${1#prior}" ;;
    viterbi) echo "conformer_ctc loss.viterbi=0.5" ;;
    delay) echo "conformer_ctc loss.delay_penalty=0.01" ;;
    # Decoding by collapsing would lose the second of two equal tokens.
    silence) echo "conformer_ctc loss.topology=silence decoding.methods=[lexicon]" ;;
    rnnt | rna) echo "transducer loss.topology=$1" ;;
    *) echo "alignment_study.sh: --settings has no '$1'" >&2 && return 1 ;;
  esac
}

experiments=()
for seed in $seeds; do
  for encoder in $encoders; do
    for setting in $settings; do
      options=$(setting_options "$setting")
      read -r recipe options <<<"$options"
      options+=" $(encoder_options "$encoder" "$recipe")"
      exp=study-$encoder-$setting-seed$seed
      # shellcheck disable=SC2086 # several options
      ./run.sh --recipe "$recipe" --corpus "$corpus" ${corpus_dir:+--corpus-dir "$corpus_dir"} \
        --exp "$exp" -- "training.seed=$seed" $options "$@"
      experiments+=("exp/$corpus/$recipe/$exp")
    done
  done
done

sets=()
for set in "data/$corpus"/test*/; do sets+=("$(basename "$set")"); done
columns=train_seconds
for set in "${sets[@]}"; do
  columns+=,$set:wer
  for metric in word_start_error_ms word_end_error_ms word_boundary_error_ms word_start_delay_ms \
    word_end_delay_ms blank_fraction peakiness entropy_nats; do
    columns+=,$set/alignment:$metric
  done
done
python local/compare.py "${experiments[@]}" --columns "$columns"
