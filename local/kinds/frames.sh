# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by run.sh: stages 0 to 3 of waveforms in frames, made of a corpus of recordings.
. local/kinds/corpus.sh
made_by=2
. local/kinds/recordings.sh
sequences=$data/$prepared

run_stage 2 "frames" "$sequences/.done" \
  "$(options_of frames) $(mark "$data/manifests/.done")" \
  . -- python local/compute_frames.py "$data" "$exp_dir/config.yaml"
. local/kinds/statistics.sh
