# shellcheck shell=bash
# The environment. Source it: . ./path.sh
#
# There are two, each with its lock in requirements/; the one that fits the machine is taken:
#   classic   in .venv           CPython 3.11, torch 1.13.1 and k2
#   current   in .venv-current   CPython 3.11, 3.12 or 3.13, torch 2, no k2: where there is no CPython
#                                3.11, or a GPU that torch 1.13 has no code for
# It is made on first use, and mended when its lock changed. Variables:
#   PLATEAU_ENV=NAME   classic or current
#   PLATEAU_VENV=DIR   use DIR in place of .venv or .venv-current. A DIR that exists and was not made by
#                      Plateau (an environment of your own) is entered as it is.
#   PYTHON=FILE        make the environment with this CPython

# An environment that Plateau made has all that is needed, and PYTHONPATH is the checkout alone. In one
# of your own, what you have in PYTHONPATH comes after the checkout.
if [ -z "${BASH_VERSION:-}${ZSH_VERSION:-}" ]; then
  echo "path.sh: this shell is neither bash nor zsh; start one of them first: bash" >&2
  return 1
fi

_plateau_enter() {
  local root=$1 venv=${PLATEAU_VENV:-} choice kind='' mark rest
  case $venv in /* | '') ;; *) venv=$PWD/$venv ;; esac
  case "$root$venv" in
    *:* | *"
"*)
      echo "path.sh: PATH and PYTHONPATH cannot hold a path with a colon or a line break; rename" >&2
      echo "the folder, or choose another place for the environment (PLATEAU_VENV): $root, $venv" >&2
      return 1
      ;;
  esac
  if [ -z "$venv" ] || [ -e "$venv/.plateau" ] || [ ! -x "$venv/bin/python" ]; then
    choice=$(bash "$root/utils/choose_environment.sh" "$venv") || return 1
    kind=${choice%% *}
    if [ -z "$venv" ]; then
      venv=$root/.venv
      if [ "$kind" = current ]; then venv=$venv-current; fi
    fi
    if [ "${VIRTUAL_ENV:-}" != "$venv" ]; then echo "path.sh: the environment is $choice" >&2; fi
  fi
  mark=$venv/.plateau
  if [ -n "$kind" ] && { [ -e "$mark" ] || [ ! -x "$venv/bin/python" ]; }; then
    # The mark of a finished environment: its lock and its place.
    if [ ! -x "$venv/bin/python" ] ||
      [ "$(cat "$mark")" != "$(cd "$root" && sha256sum "requirements/$kind.txt") $venv" ]; then
      bash "$root/utils/make_venv.sh" "$kind" "$venv" || return 1
    fi
  fi
  # torch 1.13's MKL takes its slow kernels on AMD processors unless told otherwise: 5 is AVX2, 7
  # AVX-512 (bench/README.md). A training step takes less than half the time with it.
  if grep -qs AuthenticAMD /proc/cpuinfo; then
    export MKL_DEBUG_CPU_TYPE=5
    if grep -qs 'avx512f.*avx512dq.*avx512cd.*avx512bw.*avx512vl' /proc/cpuinfo; then
      export MKL_DEBUG_CPU_TYPE=7
    fi
  fi
  # Threads that have nothing to do spin for a moment only, then sleep. By default they spin for long,
  # and where another program takes a core the others wait for it at every operation: an epoch of yesno
  # took 48 s in place of 1.5. A training step of the espeak transducer on two cores, alone and beside
  # another one: 90 and 111 ms without spinning, 69 and 178 with 1000 turns, 78 and 1575 with 20000.
  export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}
  unset PYTHONHOME
  export VIRTUAL_ENV=$venv
  case $PATH in "$venv/bin":*) ;; *) export PATH="$venv/bin:$PATH" ;; esac
  rest=${PYTHONPATH:-}
  case $rest in "$root") rest= ;; "$root":*) rest=${rest#"$root":} ;; esac
  if [ -n "$rest" ] && [ -e "$mark" ]; then
    echo "path.sh: PYTHONPATH is not needed here, and packages there could be others: dropped $rest" >&2
    rest=
  fi
  export PYTHONPATH="$root${rest:+:$rest}"
}

_plateau_enter "$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]:-$0}")" && pwd)"
