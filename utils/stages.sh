# shellcheck shell=bash disable=SC2154
# Sourced by run.sh: stages that are done once, and locks.
#
# A stage's mark is a file among its outputs, written when it has succeeded: a checksum of all that
# the stage depends on. So a killed stage is not taken for finished, and changed inputs or options,
# or outputs that were deleted, make it run again.

fail() {
  echo "${0##*/}: $1" >&2
  exit 1
}

# The mark of a stage, or "none".
mark() { cat "$1" 2>/dev/null || echo none; }

# Top-level sections of the experiment's config.yaml.
options_of() {
  awk -v wanted=" $* " '/^[^ -]/ { on = index(wanted, " " substr($1, 1, length($1) - 1) " ") } on' \
    "$exp_dir/config.yaml"
}

# All but the named top-level sections.
options_except() {
  awk -v unwanted=" $* " \
    '/^[^ -]/ { off = index(unwanted, " " substr($1, 1, length($1) - 1) " ") } !off' \
    "$exp_dir/config.yaml"
}

checksum() { sha256sum | cut -d ' ' -f 1; }

# run_stage NUMBER TITLE MARK DEPENDS COMMAND…: run a stage if it is asked for and not done.
run_stage() {
  local number=$1 title=$2 mark=$3 key
  key=$(printf '%s' "$4" | checksum)
  shift 4
  if [ "$number" -lt "$stage" ] || [ "$number" -gt "$stop_stage" ]; then return 0; fi
  if [ "$force" = false ] && [ "$(mark "$mark")" = "$key" ]; then
    echo "stage $number, $title: done before"
    return 0
  fi
  echo "stage $number, $title"
  rm -f "$mark"
  STAGE_KEY=$key "$@"
  mkdir -p "${mark%/*}"
  echo "$key" >"$mark.tmp"
  mv "$mark.tmp" "$mark"
}

# set_aside DIR NAME…: move what is there into the first free DIR/before-N.
set_aside() {
  local dir=$1 n=1 name
  shift
  while [ -e "$dir/before-$n" ]; do n=$((n + 1)); done
  mkdir "$dir/before-$n"
  for name; do
    if [ -e "$dir/$name" ]; then mv "$dir/$name" "$dir/before-$n/"; fi
  done
  echo "options or data changed: what was trained before is kept in $dir/before-$n"
}

# lock FD DIR: wait until no other run.sh works in DIR. The lock ends with `unlock FD`, or with the
# last of our processes: one that outlives a killed run.sh still holds it.
lock() {
  eval "exec $1>\"\$2/.lock\""
  if ! flock --nonblock "$1"; then
    echo "waiting: another run works in $2" >&2
    flock "$1"
  fi
}

unlock() { eval "exec $1>&-"; }
