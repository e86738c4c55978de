"""Checkpoints: all that a run needs to go on, or that a model needs to be used.

They hold tensors and plain data, with a checksum; see `plateau.training.state_file`.
"""

import functools
import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from plateau.config import UserError
from plateau.graphs.engines import engine_name
from plateau.io import replacing
from plateau.training.state_file import read_state, write_state

LAST, BEFORE_LAST = "last.safetensors", "before-last.safetensors"  # all that a run needs to go on
AVERAGED = "averaged.safetensors"  # the model to use


class Damaged(UserError):
    """A checkpoint that is there, and that is not whole."""


def save(state: dict[str, Any], path: Path, keep: bool = False) -> None:
    """Write a checkpoint; a crash leaves the one that was there or the new one.

    Args:
        state: what to write.
        path: where.
        keep: the one that was there becomes `BEFORE_LAST`.

    Raises:
        UserError: it cannot be written; the one that was there still is.
    """
    try:
        with replacing(path) as temporary:
            write_state(state, temporary)
            if keep and path.exists():
                path.replace(path.with_name(BEFORE_LAST))
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 1e6
        raise UserError(
            f"{path}: could not be written: {error.strerror or error}; "
            f"there are {free:.0f} MB free\n"
            "nothing is lost: make room, and start the same ./run.sh again"
        ) from None


def load(path: Path, needed: Collection[str] = (), advice: str = "") -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Args:
        path: the file.
        needed: what must be in it.
        advice: what to do where it is missing or damaged.

    Raises:
        UserError: no such file, or it cannot be read.
        Damaged: cut short, changed, or something else than a checkpoint.
    """
    path = Path(path)
    advice = advice and f"\n{advice}"
    try:
        size = path.stat().st_size
        state = read_state(path)
    except FileNotFoundError:
        _refuse_old(path)
        raise UserError(f"{path}: no such checkpoint{advice}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise Damaged(f"{path}: damaged ({size} bytes): {error}{advice}") from None
    missing = [name for name in needed if not isinstance(state, dict) or name not in state]
    if missing:
        raise Damaged(f"{path}: not a checkpoint of a training: no {', '.join(missing)}{advice}")
    return state


def newest(
    checkpoints: Path, needed: Collection[str], is_main: bool
) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint of a run that can be read; None if the run was not begun.

    A damaged last one is put aside, by the main process, and said.

    Raises:
        UserError: all are damaged, or an older Plateau wrote them.
    """
    damaged = []
    for path in (checkpoints / LAST, checkpoints / BEFORE_LAST):
        if not path.exists():
            _refuse_old(path)
            continue
        try:
            state = load(path, needed)
        except Damaged as error:
            damaged.append(error)
            continue
        if damaged and is_main:
            aside = (checkpoints / LAST).replace(checkpoints / f"damaged-{LAST}")
            tqdm.write(f"{damaged[0]}; kept as {aside.name}, and the one before it is taken")
        return path, state
    if damaged:
        raise UserError(
            f"{'; '.join(map(str, damaged))}\nthere is none before it; to begin again: "
            f"rm -r {quote(str(checkpoints))}; then start the same ./run.sh again"
        )
    return None


def _refuse_old(path: Path) -> None:
    """Say what to do where there is no such checkpoint, but one as they were written before.

    Raises:
        UserError: there is one.
    """
    old = path.with_suffix(".pt")
    if old.exists():
        raise UserError(
            f"{old}: a checkpoint of an older Plateau; convert it: "
            f"python local/convert_checkpoints.py {quote(str(path.parent.parent))}"
        )


def restore_model(model: nn.Module, state: dict[str, Any], path: Path) -> None:
    """Put the parameters and buffers of a checkpoint that came from ``path`` into a model.

    Raises:
        UserError: they are another model's: of other sizes, or of other code.
    """
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:  # a line of what it is about, and one for each difference
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise UserError(
            f"{path}: not the model that these options and this code make: {lines[0]}"
            + (f" (and {len(lines) - 1} more)" if lines[1:] else "")
        ) from None


def average(paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of the models' parameters and buffers, summed in float64.

    Averaging the last checkpoints of a run is a long-standing habit in speech recognition and
    close to stochastic weight averaging (Izmailov et al. 2018). Integer buffers are the last ones.
    """
    sums: dict[str, torch.Tensor] = {}
    for i, path in enumerate(paths):  # one at a time, for they may be large
        advice = f"average the others: rm {path}; then start the same ./run.sh again"
        model = load(path, ["model"], advice)["model"]
        for name, value in model.items():
            if value.is_floating_point():
                sums[name] = value.double() if i == 0 else sums[name] + value.double()
    return {
        name: (sums[name] / len(paths)).to(value.dtype) if name in sums else value
        for name, value in model.items()
    }


def set_seed(seed: int) -> None:
    """Seed every random generator in use."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every random generator in use."""
    generator, keys, *place = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (generator, keys.tolist(), *place),  # an array would be no plain data
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the random generators back where `random_state` found them."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@functools.cache
def environment() -> dict[str, str]:
    """What a result depends on beside options and data: versions, machine, commit."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # a machine without git
        commit = ""
    versions = {}
    for package in ("torch", "k2", "lhotse", "kaldifeat", "kaldi-native-fbank", "numpy", "numba"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "commit": commit or "unknown",
        "python": sys.version.split()[0],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "graphs": engine_name("cuda" if torch.cuda.is_available() else "cpu"),
        **versions,
    }
