# shellcheck shell=bash
# Sourced: turns `--name value` on the command line into `name=value`, for names that are set.
#
# `--some-name x` sets $some_name, which must have a default before. A variable whose default is
# `false` is a switch, set to `true`, and takes no value; all others need one, which is not empty and is
# no option. `--help` prints the comment at the head of the script.
# What comes after `--` stays in "$@".
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      awk 'NR > 1 { if (/^#/) { sub(/^# ?/, ""); print } else exit }' "$0"
      exit 0
      ;;
    --)
      shift
      break
      ;;
    --*)
      _name=${1#--}
      _name=${_name//-/_}
      if ! [[ $_name =~ ^[a-z_]+$ ]] || [ -z "${!_name+set}" ]; then
        echo "${0##*/}: unknown option $1; ./${0##*/} --help lists them" >&2
        exit 2
      fi
      if [ "${!_name}" = false ] || [ "${!_name}" = true ]; then
        printf -v "$_name" true
        shift
      elif [[ ${2:-} == "" || $2 == --* ]]; then
        echo "${0##*/}: option $1 needs a value" >&2
        exit 2
      else
        printf -v "$_name" '%s' "$2"
        shift 2
      fi
      ;;
    *)
      echo "${0##*/}: '$1' is not an option; field.name=value goes after --" >&2
      exit 2
      ;;
  esac
done
