#!/usr/bin/env bash
# The study of latent variables: models with latents and without, of the same number of parameters.
#
#   vrnn/study.sh                                                 # strokes, three seeds: an hour
#   vrnn/study.sh --corpus omniglot --corpus-dir DIR
#   vrnn/study.sh --corpus espeak --seeds 1 --models "rnn_gauss vrnn_gauss"
#
# Each model and seed is an experiment exp/CORPUS/vrnn/study-MODEL-seedN. Stopped and started again, it
# goes on where it was. It ends with the table.
#
# Options:
#   --corpus NAME     strokes (default) or omniglot; espeak, or another of speech
#   --corpus-dir DIR  where the files of a published corpus are
#   --models LIST     of those below (all)
#   --seeds LIST      ("1 2 3")
# After "--": field.name=value for all.

# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."

corpus=strokes
corpus_dir=
models="rnn_gauss rnn_gmm rnn_ar rnn_ar_gmm vrnn_i vrnn_gauss vrnn_gmm"
seeds="1 2 3"
. utils/parse_options.sh
. ./path.sh || exit 1
case $corpus_dir in "" | /*) ;; *) corpus_dir=$called_from/$corpus_dir ;; esac

# All have as many parameters, within 5 %: what the latents do not take, the recurrence has.
case $corpus in
  strokes | omniglot) # 0.23 M
    gauss="strokes vrnn.output.components=1" gmm="strokes vrnn.output.components=20"
    size="vrnn.latent_dim=24 vrnn.feature_dim=96 vrnn.latent_feature_dim=96 vrnn.output.masked_dim=96"
    hidden="rnn_gauss=192 rnn_gmm=184 rnn_ar=184 rnn_ar_gmm=168 vrnn_i=136 vrnn_gauss=128 vrnn_gmm=120"
    epochs=10 rate=3.0e-3
    ;;
  *) # 1.0 M; of 200 values of a frame, more components take all parameters for the last layer
    gauss="gaussian" gmm="mixture vrnn.output.components=5"
    size="vrnn.latent_dim=64 vrnn.feature_dim=192 vrnn.latent_feature_dim=192 vrnn.output.masked_dim=192"
    hidden="rnn_gauss=368 rnn_gmm=280 rnn_ar=320 vrnn_i=264 vrnn_gauss=240 vrnn_gmm=160"
    epochs=3 rate=1.0e-3
    models=${models/rnn_ar_gmm /} # 3,000 parameters of a frame's distribution
    ;;
esac

model_options() {
  case $1 in
    rnn_gauss) echo "vrnn.kind=rnn vrnn.output.kind=$gauss" ;;
    rnn_gmm) echo "vrnn.kind=rnn vrnn.output.kind=$gmm" ;;
    rnn_ar) echo "vrnn.kind=rnn vrnn.output.kind=$gauss vrnn.output.autoregressive=true" ;;
    rnn_ar_gmm) echo "vrnn.kind=rnn vrnn.output.kind=$gmm vrnn.output.autoregressive=true" ;;
    vrnn_i) echo "vrnn.kind=vrnn_i vrnn.output.kind=$gauss" ;;
    vrnn_gauss) echo "vrnn.kind=vrnn vrnn.output.kind=$gauss" ;;
    vrnn_gmm) echo "vrnn.kind=vrnn vrnn.output.kind=$gmm" ;;
    *) echo "study.sh: --models has no '$1'" >&2 && return 1 ;;
  esac
  for pair in $hidden; do
    if [ "${pair%=*}" = "$1" ]; then echo "vrnn.hidden_dim=${pair#*=}"; fi
  done
}

# A name that there is not shows itself now, not after hours.
for model in $models; do model_options "$model"; done >/dev/null

experiments=()
for seed in $seeds; do
  for model in $models; do
    exp=study-$model-seed$seed
    options=$(model_options "$model")
    # shellcheck disable=SC2086 # several options
    ./run.sh --recipe vrnn --corpus "$corpus" ${corpus_dir:+--corpus-dir "$corpus_dir"} --exp "$exp" \
      --stop-stage 6 -- "training.seed=$seed" "training.epochs=$epochs" "training.schedule.peak=$rate" \
      loading.batch_size=32 loading.max_steps=100 $size $options "$@"
    experiments+=("exp/$corpus/vrnn/$exp")
    python local/results.py "exp/$corpus/vrnn/$exp" >/dev/null
  done
done

if [ ${#experiments[@]} -eq 0 ]; then
  echo "study.sh: --models and --seeds name no experiment" >&2
  exit 1
fi
columns=
for folder in "${experiments[0]}"/decode_*_bound; do
  set=${folder##*/decode_}
  for metric in bound_nats_per_sequence bound_nats_per_step kl_nats_per_step; do
    columns+=${set%_bound}:$metric,
  done
done
python local/compare.py "${experiments[@]}" --columns "${columns}train_seconds"
