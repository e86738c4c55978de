# shellcheck shell=bash
# find_python VERSION...: print the first CPython of one of these versions (3.11 …) that is here and
# runs, or status 1. Where PYTHON is set, that one and no other. Sourced by bash.

_is_cpython() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2] * (sys.implementation.name == "cpython"))' \
    2>/dev/null | grep -qFx "$2"
}

find_python() {
  local version python
  for version in "$@"; do
    for python in "${PYTHON:-python$version}" \
      "$([ -n "${PYTHON:-}" ] || UV_PYTHON_DOWNLOADS=never uv python find "cpython@$version" 2>/dev/null)"
    do
      if [ -n "$python" ] && _is_cpython "$python" "$version"; then
        echo "$python"
        return 0
      fi
    done
  done
  return 1
}
