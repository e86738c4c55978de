#!/usr/bin/env bash
# The alignment study: what losses, priors and topologies do to the times of words, beside WER.
#
#   local/alignment_study.sh                                      # espeak, three seeds: a day
#   local/alignment_study.sh --seeds 1 --settings "ctc prior0.1" -- training.epochs=6
#   local/alignment_study.sh --corpus fsdd --corpus-dir DIR --encoders conformer
#
# Each setting, encoder and seed is an experiment exp/CORPUS/RECIPE/study-ENCODER-SETTING-seedN.
# Stopped and started again, it goes on where it was. It ends with the table.
#
# Options:
#   --corpus NAME     espeak (default), or another
#   --corpus-dir DIR  where the recordings of a published corpus are
#   --encoders LIST   of conformer, blstm, local: a Conformer that sees 0.16 s to each side
#                     ("conformer blstm")
#   --settings LIST   of those below (all); priorX is a label prior of scale X
#   --seeds LIST      ("1 2 3")
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
encoders="conformer blstm"
settings="random ctc prior0.05 prior0.1 prior0.3 viterbi delay silence rnnt rna"
seeds="1 2 3"
. utils/parse_options.sh
. ./path.sh || exit 1
case $corpus_dir in "" | /*) ;; *) corpus_dir=$called_from/$corpus_dir ;; esac

# Frames of 20 ms for all encoders.
encoder_options() {
  case $1 in
    conformer) echo "encoder.kind=conformer encoder.conformer.subsampling=2" ;;
    local)
      echo "encoder.kind=conformer encoder.conformer.subsampling=2"
      echo "encoder.conformer.attention_context=1 encoder.conformer.conv_kernel=3"
      ;;
    blstm)
      echo "encoder.kind=blstm encoder.blstm.subsampling=2 encoder.blstm.dim=128"
      # With a Conformer's three times smaller steps it still says mostly blank after two epochs.
      echo "encoder.blstm.num_layers=2 training.schedule.peak=6.0e-3"
      if [ "$2" = transducer ]; then echo "loss.ctc_layers=[2]"; fi
      ;;
    *) echo "alignment_study.sh: --encoders has no '$1'" >&2 && return 1 ;;
  esac
}

# The recipe of a setting, and its options. With topology silence only the lexicon tells equal tokens
# in a row apart, so it decodes all; and all learn where tokens are by plain CTC.
ctc="conformer_ctc decoding.methods=[lexicon] loss.prior.estimator=none"
shaped="loss.after_steps=864 loss.warm_up_steps=400"
setting_options() {
  case $1 in
    rnnt | rna) echo "transducer loss.topology=$1 decoding.methods=[modified_beam]" ;;
    # Convolutions that start at random, with a shift in time.
    random) echo "$ctc encoder.conformer.identity_start=false" ;;
    ctc) echo "$ctc" ;;
    prior*) echo "$ctc $shaped loss.prior.estimator=moving_average loss.prior.scale=${1#prior}" ;;
    viterbi) echo "$ctc $shaped loss.viterbi=0.5" ;;
    delay) echo "$ctc $shaped loss.delay_penalty=0.01" ;;
    silence) echo "$ctc $shaped loss.topology=silence" ;;
    *) echo "alignment_study.sh: --settings has no '$1'" >&2 && return 1 ;;
  esac
}

# A name that there is not shows itself now, not after hours.
for setting in $settings; do setting_options "$setting"; done >/dev/null
for encoder in $encoders; do encoder_options "$encoder" conformer_ctc; done >/dev/null

experiments=()
for seed in $seeds; do
  for encoder in $encoders; do
    for setting in $settings; do
      if [ "$encoder $setting" = "blstm random" ]; then continue; fi # it has no convolutions in time
      options=$(setting_options "$setting")
      read -r recipe options <<<"$options"
      size=$(encoder_options "$encoder" "$recipe")
      exp=study-$encoder-$setting-seed$seed
      # shellcheck disable=SC2086 # several options
      ./run.sh --recipe "$recipe" --corpus "$corpus" ${corpus_dir:+--corpus-dir "$corpus_dir"} \
        --exp "$exp" -- "training.seed=$seed" "decoding.batch_sizes=[16]" $size $options "$@"
      experiments+=("exp/$corpus/$recipe/$exp")
    done
  done
done

if [ ${#experiments[@]} -eq 0 ]; then
  echo "alignment_study.sh: --settings, --encoders and --seeds name no experiment" >&2
  exit 1
fi
roles=$(python local/sets.py "data/$corpus" "${experiments[0]}/config.yaml")
{ read -r dev && read -r sets || true; } <<<"$roles"
columns=train_seconds
for set in $sets; do
  if [ "$set" = "$dev" ]; then continue; fi
  columns+=,$set:wer
  for metric in word_start_error_ms word_end_error_ms word_boundary_error_ms word_start_delay_ms \
    word_end_delay_ms blank_fraction peakiness entropy_nats; do
    columns+=,$set/alignment:$metric
  done
done
python local/compare.py "${experiments[@]}" --columns "$columns"
