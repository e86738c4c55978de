# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by the kinds of data that are sequences: stage 3, and what training and decoding depend on.
sequences_of() { checksum_of "$sequences/$1/sequences.jsonl"; } # which has checksums of the values

sets_of "$sequences" sequences.jsonl "$made_by"
run_stage 3 "checks and statistics" "$sequences/.checked" \
  "$(cat "$sequences"/*/sequences.jsonl 2>/dev/null | checksum)" \
  statistics.json -- python local/check_sequences.py "$sequences"
trained_on="$(sequences_of train) $dev ${dev:+$(sequences_of "$dev")}"
decoded_on=$(for set in $tests; do sequences_of "$set"; done)
