# shellcheck shell=bash disable=SC2154
# Sourced by run.sh: stages that are done once, and locks.
#
# A stage's mark is a file among its outputs, written when it has succeeded: a checksum of all that
# the stage depends on, and below it the size and name of each output. So a killed stage is not taken
# for finished, and changed inputs or options, or outputs that are gone or cut short, make it run
# again.

# Text, quoted where it has control characters: names in data may have some, which a terminal obeys.
say() {
  case $1 in
    *[[:cntrl:]]*) printf '%q\n' "$1" ;;
    *) printf '%s\n' "$1" ;;
  esac
}

fail() {
  say "${0##*/}: $1" >&2
  exit 1
}

# check_number OPTION VALUE LOW HIGH: fail unless the value is a whole number in this range.
check_number() {
  if ! [[ $2 =~ ^[0-9]{1,4}$ ]] || ((10#$2 < $3 || 10#$2 > $4)); then
    fail "$1 is $(printf %q "$2"); it must be a whole number, at least $3 and at most $4"
  fi
}

# check_name OPTION VALUE: fail unless the value can be a folder's name, which stays where we put it.
# There may be slashes in it; blanks and signs of the shell are as good as letters.
check_name() {
  case "/$2/" in
    *//* | */.* | *[[:cntrl:]]*)
      fail "$1 is $(printf %q "$2"); no part of a name may be empty, begin with a dot, or have control characters"
      ;;
  esac
}

# The checksum in the mark of a stage, or "none".
mark() { head -n 1 "$1" 2>/dev/null || echo none; }

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

# Of a file, or "none".
checksum_of() { if [ -f "$1" ]; then checksum <"$1"; else echo none; fi; }

# Checksum of the file that a field of the experiment's config.yaml names, or "none".
file_of() {
  checksum_of "$(awk -v field="$1:" \
    '$1 == field { sub(/^[^:]*: */, ""); gsub(/^["\047]|["\047]$/, ""); print; exit }' "$exp_dir/config.yaml")"
}

# outputs_of MARK PATTERN…: sizes and names of files, sorted; patterns count from the mark's folder,
# and a folder stands for all in it.
outputs_of() (
  cd "${1%/*}" 2>/dev/null || return 0
  shift
  IFS= # names may have spaces
  # shellcheck disable=SC2068 # patterns
  { find $@ -type f ! -name '.*' -printf '%s %p\n' 2>/dev/null || true; } | LC_ALL=C sort
)

# difference MARK OUTPUT…: what is not as it was when the stage ended, in a line; nothing if all is.
difference() {
  local mark=$1 lost size name file others
  lost=$(LC_ALL=C comm -23 <(tail -n +2 "$mark" | LC_ALL=C sort) <(outputs_of "$@"))
  if [ -z "$lost" ]; then return; fi
  read -r size name <<<"$lost"
  file=$(realpath -ms --relative-to=. "${mark%/*}/$name")
  others=$(($(wc -l <<<"$lost") - 1))
  if [ "$others" -gt 0 ]; then others=" (and $others others)"; else others=; fi
  if [ -e "$file" ]; then
    echo "$file has $(stat -c %s "$file") bytes, not $size$others"
  else
    echo "$file is missing$others"
  fi
}

# run_stage NUMBER TITLE MARK DEPENDS OUTPUT… -- COMMAND…: run a stage if it is asked for and not
# done. An output is a file, a folder or a pattern, as seen from the mark's folder.
run_stage() {
  local number=$1 title=$2 mark=$3 key outputs=() found
  key=$(printf '%s' "$4" | checksum)
  shift 4
  while [ "$1" != -- ]; do outputs+=("$1") && shift; done
  shift
  if [ "$number" -gt "$stop_stage" ]; then return 0; fi
  if [ "$number" -lt "$stage" ]; then
    # What comes next is made of these outputs, or shows them.
    if [ ${#outputs[@]} -gt 0 ] && [ -f "$mark" ] && [ "$(mark "$mark")" != "$key" ]; then
      echo "stage $number, $title: was done with other options or data, and is left so by --stage $stage" >&2
    fi
    return 0
  fi
  found=
  if [ "$force" = false ] && [ "$(mark "$mark")" = "$key" ]; then
    found=$(difference "$mark" "${outputs[@]}")
    if [ -z "$found" ]; then
      echo "stage $number, $title: done before"
      return 0
    fi
    found=": $found: done again"
  fi
  say "stage $number, $title$found"
  rm -f "$mark"
  running="stage $number, $title"
  killed_before=$(killed_for_memory)
  trap 'ended $?' EXIT
  STAGE_KEY=$key "$@"
  trap - EXIT
  mkdir -p "${mark%/*}"
  { echo "$key" && if [ ${#outputs[@]} -gt 0 ]; then outputs_of "$mark" "${outputs[@]}"; fi; } \
    >"$mark.tmp"
  mv "$mark.tmp" "$mark"
}

# How many processes the kernel has killed since it started, since memory ran out.
killed_for_memory() { awk '$1 == "oom_kill" { n = $2 } END { print n + 0 }' /proc/vmstat; }

# ended STATUS: if it was a signal that ended a stage, say so; what was killed said nothing itself.
ended() {
  local signal=$(($1 - 128)) memory number
  # Ctrl-C, a closed pipe and a polite kill are known to who sent them.
  case $signal in -* | 0 | 2 | 13 | 15) return ;; esac
  memory=$(awk '/^Mem(Total|Available)/ { printf "%s %.1f GB, ", substr($1, 4), $2 / 1e6 }' /proc/meminfo)
  number=$(($(killed_for_memory) - killed_before))
  echo "${0##*/}: $running: killed by signal $signal (SIG$(kill -l "$signal"))" >&2
  echo "memory: ${memory}processes that the kernel killed for want of memory meanwhile: $number" >&2
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
  say "options or data changed: what was trained before is kept in $dir/before-$n"
}

# lock FD DIR: wait until no other run.sh works in DIR. The lock ends with `unlock FD`, or with the
# last of our processes: one that outlives a killed run.sh still holds it.
lock() {
  eval "exec $1>\"\$2/.lock\""
  if ! flock --nonblock "$1"; then
    say "waiting: another run works in $2" >&2
    flock "$1"
  fi
}

unlock() { eval "exec $1>&-"; }
