# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by the kinds of data: stage 0, which is the same for all, and which set is for what.

make_corpus() {
  if [ ! -f "egs/$corpus/prepare.py" ]; then return; fi
  python "egs/$corpus/prepare.py" "$data" --config "$exp_dir/config.yaml" --nj "$nj" \
    ${corpus_dir:+--corpus-dir "$corpus_dir"}
  echo "$corpus_dir" >"$data/corpus_dir.tmp"
  mv "$data/corpus_dir.tmp" "$data/corpus_dir"
}
if [ -z "$corpus_dir" ] && [ -f "$data/corpus_dir" ]; then corpus_dir=$(cat "$data/corpus_dir"); fi
run_stage 0 "corpus" "$data/.done" \
  "$(options_of corpus) $corpus_dir" \
  -- make_corpus # its outputs are the user's to mend

# sets_of DIR MARK STAGE: the development set of a folder, and its test sets; a set has a file MARK.
# As long as STAGE, which makes them, may not have been done, the answer is not needed.
sets_of() {
  local sets
  if [ "$stop_stage" -le "$3" ]; then return; fi
  sets=$(python local/sets.py "$1" "$exp_dir/config.yaml" --mark "$2")
  { read -r dev && read -r tests || true; } <<<"$sets"
}
