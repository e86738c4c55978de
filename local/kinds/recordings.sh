# shellcheck shell=bash disable=SC2154
# Sourced by the kinds of data that are recordings: stage 1, of Kaldi data directories.

# Names and checksums of the files of data directories, given as a pattern.
contents_of() {
  # shellcheck disable=SC2086 # a pattern
  (cd "$data" && sha256sum $1/{wav.scp,text,utt2spk,segments,ctm,phones.ctm} 2>/dev/null) || true
}

# Size and time of each audio file that a wav.scp names. Shell commands are no files.
audio_of_sets() {
  cat "$data"/*/wav.scp 2>/dev/null | tr -d '\r' | grep -v '|[[:space:]]*$' |
    sed -E 's/^[^[:space:]]+[[:space:]]+//; s/[[:space:]]+$//' | LC_ALL=C sort -u |
    xargs -d '\n' -r stat -L -c '%s %.9Y %n' 2>/dev/null || true
}

make_manifests() {
  local pipes=()
  if [ "$allow_pipes" = true ]; then pipes=(--allow-pipes); fi
  rm -f "$data/fbank/.done" # its cuts are among the manifests
  python local/make_manifests.py "$data" "${pipes[@]}" --nj "$nj" # checks the directories first
}
run_stage 1 "data directories and manifests" "$data/manifests/.done" \
  "$(contents_of '*') $(audio_of_sets)" \
  '*_recordings_*' '*_supervisions_*' -- make_manifests
