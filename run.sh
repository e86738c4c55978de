#!/usr/bin/env bash
# The main job: from a corpus to a trained, decoded and scored model.
#
#   ./run.sh                                     espeak corpus, Conformer with CTC, all stages
#   ./run.sh --corpus yesno --corpus-dir DIR     a corpus of real recordings in DIR
#   ./run.sh --recipe masked_text                text with holes, and what is heard there
#   ./run.sh --recipe vrnn                       pen strokes, and models with latent variables
#   ./run.sh --stage 5 -- training.epochs=10     from training on, with other options
#
# Stages (a finished one is not done again unless its inputs or options changed):
#   0  corpus         make it, or take it from --corpus-dir   data/CORPUS/SET
#   1  data           validate data directories, manifests    data/CORPUS/manifests
#   2  features       filterbanks, mean and variance          data/CORPUS/fbank
#   3  tokens         subwords, characters, words or phones   data/CORPUS/lang_KIND
#   4  pre-flight     checks of data and options before hours are spent
#   5  train                                                  exp/…/checkpoints
#   6  decode         and score                               exp/…/decode_SET_METHOD
#   7  align          and measure, with the final model       exp/…/align_SET
#   8  report         the table of results, a page to look at  exp/…/{results.json,report}
# Of vrnn, on pen strokes and images: 0 corpus, 3 checks and statistics, 4 to 6 and 8 as above; on
# speech, too: 1 data, and 2 frames of the waveforms, in data/CORPUS/frames.
#
# Options:
#   --stage N         first stage (0)
#   --stop-stage M    last stage (8)
#   --corpus NAME     espeak (default), yesno, fsdd, mboshi, or your own: Kaldi data directories
#                     data/NAME/train, data/NAME/dev, data/NAME/test*. Of vrnn: strokes (default),
#                     omniglot, iam_ondb, digits, mnist, or one of speech
#   --dev-set NAME    the set that training looks at after each epoch (dev, valid, … if there is one)
#   --test-sets LIST  sets to decode and align ("dev test_a …": dev and all named test… or eval…)
#   --corpus-dir DIR  where the recordings, or other files, of a published corpus are
#   --recipe NAME     conformer_ctc (default), transducer, masked_text, masked_window, vrnn
#   --exp NAME        experiment's name; without it, "default" and the overrides given after --
#   --config FILE     options in YAML (egs/CORPUS/conf/RECIPE.yaml, else RECIPE/conf/default.yaml)
#   --nj N            parallel processes for corpus and features (number of cores)
#   --num-gpus N      processes to train with, one per GPU (1; without a GPU: the CPU)
#   --allow-pipes     let wav.scp hold shell commands, and run them; only for data that you trust
#   --force           do the stages again even if they are done
# After "--": field.name=value for any option, the last of two counts; exp/…/config.yaml lists all.

# shellcheck disable=SC2034 # local/kinds/ uses some
# Called by sh or another shell: start bash.
if [ -z "${BASH_VERSION:-}" ] || [ -o posix ]; then
  exec env -u POSIXLY_CORRECT -u SHELLOPTS bash "$0" "$@"
fi
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")"

stage=0
stop_stage=8
corpus=
corpus_dir=
dev_set=
test_sets=
recipe=conformer_ctc
exp=
config=
nj=$(getconf _NPROCESSORS_ONLN)
num_gpus=1
allow_pipes=false
force=false
. utils/parse_options.sh
. utils/stages.sh
check_number --stage "$stage" 0 8
check_number --stop-stage "$stop_stage" 0 8
check_number --nj "$nj" 1 1000
check_number --num-gpus "$num_gpus" 1 1000
if [ "$stage" -gt "$stop_stage" ]; then fail "--stage $stage comes after --stop-stage $stop_stage"; fi
keep=()
if [ -n "$exp" ]; then keep=(--keep); fi
if [[ $recipe == *[/.]* ]] || [ ! -f "$recipe/train.py" ]; then
  recipes=(*/train.py)
  fail "--recipe is $(printf %q "$recipe"); it must be one of ${recipes[*]%/train.py}"
fi
# Of a recipe that does not take speech.
corpus=${corpus:-$(cat "$recipe/conf/corpus" 2>/dev/null || echo espeak)}
exp=${exp:-$(IFS=,; echo "default${*:+,$*}" | tr '/ ' '__' | cut -c 1-120)}
check_name --corpus "$corpus"
check_name --exp "$exp"
case $exp in */*) fail "--exp is $exp; an experiment is one folder in exp/CORPUS/RECIPE: leave out the slash" ;; esac
data=data/$corpus
exp_dir=exp/$corpus/$recipe/$exp

if [ ! -d "egs/$corpus" ] && ! (cd "$data" && { ls -d -- */wav.scp || ls -d -- */sequences.jsonl; }) >/dev/null 2>&1; then
  fail "--corpus $corpus: there is neither egs/$corpus nor your data directory $data/train"
fi
. ./path.sh || exit 1
. ./cmd.sh
if [ "$allow_pipes" = true ]; then export PLATEAU_ALLOW_PIPES=true; fi # plateau/data/stored.py
if [ ! -t 2 ]; then export TQDM_DISABLE=1; fi # progress bars are for terminals
case $corpus_dir in "" | /*) ;; *) corpus_dir=$called_from/$corpus_dir ;; esac
case $config in "" | /*) ;; *) config=$called_from/$config ;; esac
if [ "$num_gpus" -gt 1 ] && [ -z "$train_cmd" ]; then python utils/torchrun.py --check "$num_gpus"; fi

# Two experiments on one corpus must not prepare it at the same time, nor one be trained twice, or
# get other options while it is trained.
mkdir -p "$data" "$exp_dir/log"
lock 8 "$exp_dir"
configured=$(python local/configure.py --corpus "$corpus" --recipe "$recipe" --exp-dir "$exp_dir" \
  ${config:+--config "$config"} ${dev_set:+--dev-set "$dev_set"} ${test_sets:+--test-sets "$test_sets"} \
  "${keep[@]}" -- "$@")
read -r kind prepared <<<"$configured"
lock 9 "$data"

# Stages 0 to 3 are those of the kind of data; they say what training and decoding depend on.
dev='' tests='' trained_on='' decoded_on=''
# shellcheck source=/dev/null
. "local/kinds/$kind.sh"
unlock 9

# A recipe's own script, or the one for all.
script() { if [ -f "$recipe/$1" ]; then echo "$recipe/$1"; else echo "local/$1"; fi; }

# It does not matter who loads batches.
trained_with="$(options_except corpus decoding dev_set test_sets | grep -v '^  num_workers:') $trained_on"
run_stage 4 "pre-flight checks" "$exp_dir/.checked" \
  "$trained_with $tests $(options_of decoding) $(file_of arpa)" \
  -- python "$(script check.py)" "$exp_dir"

train() {
  local launch=(python)
  # Checkpoints of other options or data are kept, but not gone on with.
  if [ -d "$exp_dir/checkpoints" ] &&
    { [ "$force" = true ] || [ "$(mark "$exp_dir/checkpoints/.key")" != "$STAGE_KEY" ]; }; then
    local results=("$exp_dir"/decode_* "$exp_dir"/align_*)
    set_aside "$exp_dir" checkpoints tensorboard log results.json report "${results[@]##*/}"
  fi
  mkdir -p "$exp_dir/checkpoints" "$exp_dir/log"
  # Beside its place first: emptied by a full disk, it would be another key.
  echo "$STAGE_KEY" >"$exp_dir/checkpoints/.key.tmp"
  mv "$exp_dir/checkpoints/.key.tmp" "$exp_dir/checkpoints/.key"
  if [ "$num_gpus" -gt 1 ]; then
    launch=(python utils/torchrun.py --standalone --nproc_per_node "$num_gpus")
  fi
  # shellcheck disable=SC2086 # a command and its options, see cmd.sh
  $train_cmd "${launch[@]}" "$recipe/train.py" "$exp_dir"
}
# Without this, stage 5 would take the model for lost.
old=$exp_dir/checkpoints/averaged.pt
if [ "$stage" -le 5 ] && [ "$stop_stage" -ge 5 ] && [ -f "$old" ] && [ ! -f "${old%.pt}.safetensors" ]; then
  fail "$old: a checkpoint of an older Plateau; convert it: python local/convert_checkpoints.py ${exp_dir@Q}"
fi
run_stage 5 "training" "$exp_dir/checkpoints/.done" "$trained_with" averaged.safetensors -- train

# Of the model itself: trained again on a GPU, or averaged over fewer epochs, it is another one.
model=
if [ "$stop_stage" -ge 6 ]; then
  model=$(checksum_of "$exp_dir/checkpoints/averaged.safetensors")
fi
# shellcheck disable=SC2086
run_stage 6 "decoding" "$exp_dir/.decoded" \
  "$(options_of decoding) $(file_of arpa) $model $decoded_on $tests" \
  'decode_*' -- $decode_cmd python "$recipe/decode.py" "$exp_dir"

if [ -f "$recipe/align.py" ]; then
  # shellcheck disable=SC2086
  run_stage 7 "alignment" "$exp_dir/.aligned" \
    "$model $decoded_on $tests" \
    'align_*' -- $decode_cmd python "$recipe/align.py" "$exp_dir"
elif [ "$stage" -eq 7 ]; then
  echo "stage 7, alignment: not there yet for $recipe"
fi
if [ "$stage" -le 8 ] && [ "$stop_stage" -ge 8 ]; then
  python local/results.py "$exp_dir"
  python "$(script report.py)" "$exp_dir"
fi
