# shellcheck shell=bash disable=SC2034
# Where jobs run: what run.sh puts before the commands that train and decode. Sourced by run.sh.
#
# Nothing: on this machine. On a cluster: a command that runs its arguments there, waits, and passes
# on their output and exit status. PLATEAU_CLUSTER=slurm ./run.sh … chooses without editing; fill in
# your site's partition, account and time limit.
case ${PLATEAU_CLUSTER:-local} in
  local)
    train_cmd=
    decode_cmd=
    ;;
  slurm)
    train_cmd="srun --gres=gpu:${num_gpus:-1} --cpus-per-task=4 --mem=16G"
    decode_cmd="srun --cpus-per-task=4 --mem=16G"
    ;;
  sge)
    train_cmd="qrsh -now no -V -cwd -l gpu=${num_gpus:-1}"
    decode_cmd="qrsh -now no -V -cwd"
    ;;
  *)
    echo "cmd.sh: PLATEAU_CLUSTER=$PLATEAU_CLUSTER is none of local, slurm, sge" >&2
    return 1
    ;;
esac
