"""`torchrun`, also where torch's own does not start: torch 1.13 on Python 3.11.

Since 3.11 an enumeration of flags leaves out the members 0 and 3, so torch takes its own default,
"redirect no output", for nothing at all and stops. And its `--standalone` takes the same port
always, so that of two trainings on a machine one ends with the other. Same options as `torchrun`;
`--check N` only says whether N processes are too many for this machine.
"""

import os
import socket
import sys

import torch
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

if Std.from_str("0") is None:
    Std.from_str = lambda number: Std(int(number))


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def too_many(number: int) -> str | None:
    """What to say of more processes than this machine has GPUs, or without GPUs cores."""
    gpus = torch.cuda.device_count()
    most = gpus or max(2, len(os.sched_getaffinity(0)))  # two show what several do
    if number <= most:
        return None
    return f"--num-gpus is {number}; it must be at most {most}: {gpus} GPUs are here" + (
        "" if gpus else ", and on the CPU no more processes than cores are of use"
    )


def with_own_port(arguments: list[str]) -> list[str]:
    """The command line with a free port in place of ``--standalone``."""
    if "--standalone" not in arguments:
        return arguments
    at = arguments.index("--standalone")
    own = ["--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{free_port()}"]
    return [*arguments[:at], *own, *arguments[at + 1 :]]


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        sys.exit(too_many(int(sys.argv[2])))
    try:
        run.main(with_own_port(sys.argv[1:]))
    except ChildFailedError:
        sys.exit(1)  # the processes have said why
