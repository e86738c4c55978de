# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by run.sh: stages 0 to 3 of transcribed speech, and what training and decoding depend on.
. local/kinds/corpus.sh
sets_of "$data" wav.scp 0
. local/kinds/recordings.sh

run_stage 2 "features" "$data/fbank/.done" \
  "$(options_of features) $(mark "$data/manifests/.done")" \
  . '../manifests/*_cuts_*' -- python local/compute_fbank.py "$data" "$exp_dir/config.yaml" --nj "$nj"

run_stage 3 "tokens" "$data/$prepared/.done" \
  "$(options_of tokens) $(file_of lexicon) $(mark "$data/manifests/.done")" \
  . -- python local/make_tokens.py "$data" "$exp_dir/config.yaml"

# Not all of stage 2: who adds a test set need not train again, nor who copies the data, which changes
# the times of files; other audio has other statistics.
trained_on="$(contents_of train) $dev ${dev:+$(contents_of "$dev")} $(file_of lexicon) \
$(checksum_of "$data/fbank/statistics.json")"
decoded_on=$(mark "$data/fbank/.done")
