"""Checkpoints: all that a run needs to go on, or that a model needs to be used.

They hold tensors and plain data. Whatever else a file holds, which could be code, is not read.
"""

import functools
import pickletools
import platform
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from plateau.config import UserError
from plateau.io import replacing

LAST, BEFORE_LAST = "last.pt", "before-last.pt"  # all that a run needs to go on


class Damaged(UserError):
    """A checkpoint that is there, and that is not whole."""


# What a pickle of tensors and plain data calls; and classes of storages, torch.FloatStorage ….
_NAMES = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
# Instructions of pickles that name what is called.
_NAMING = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}


def _other_name(pickled: bytes) -> str | None:
    """What a pickle would call beside `_NAMES`, so that nothing can be executed by it; or None.

    It is not unpickled. torch has `weights_only` for this, but in 1.13 it cannot read a float.
    """
    for instruction, name, _ in pickletools.genops(pickled):
        storage = re.fullmatch(r"torch \w+Storage", str(name))
        plain = instruction.name == "GLOBAL" and (name in _NAMES or storage)
        if instruction.name in _NAMING and not plain:
            return str(name)
    return None


class _Sink:
    """A file that torch may write to; an error it keeps to itself.

    Where writing fails, torch 1.13's writer calls `abort`, so that nothing could be said.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write as long as there was no error."""
        if self.error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """The file is flushed when it is closed."""


def save(state: dict[str, Any], path: Path, keep: bool = False) -> None:
    """Write a checkpoint; a crash leaves the one that was there or the new one.

    Args:
        state: what to write.
        path: where.
        keep: the one that was there becomes ``before-last.pt``.

    Raises:
        UserError: it cannot be written; the one that was there still is.
    """
    try:
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                sink = _Sink(file)
                torch.save(state, sink)
            if sink.error is not None:
                raise sink.error
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
        UserError: no such file, or it cannot be opened.
        Damaged: cut short, changed, or something else than a checkpoint.
    """
    path = Path(path)
    advice = advice and f"\n{advice}"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint{advice}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare all checksums
            changed = archive.testzip()
            if changed is not None:
                raise ValueError(f"{changed} in it was changed")
            names = [name.lower() for name in archive.namelist()]
            if len(set(names)) < len(names):  # torch could read the other one
                raise ValueError("two files in it have one name")
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            if any(name.endswith("constants.pkl") for name in pickles):
                raise ValueError("it is a TorchScript program")
            others = [_other_name(archive.read(name)) for name in pickles]
        if other := next(filter(None, others), None):
            raise ValueError(
                f"not read, for it would call {other}, which is no tensor or plain data"
            )
        state = torch.load(path, map_location="cpu", weights_only=False)
    except MemoryError:
        raise
    except Exception as error:  # unpickling may raise anything
        fault = f"{path}: damaged ({size} bytes): {_first_line(error)}"
        raise Damaged(f"{fault}{advice}") from None
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
        UserError: all are damaged.
    """
    damaged = []
    for path in (checkpoints / LAST, checkpoints / BEFORE_LAST):
        try:
            state = load(path, needed) if path.exists() else None
        except Damaged as error:
            damaged.append(error)
            continue
        if state is None:
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
    models = []
    for path in paths:
        advice = f"average the others: rm {path}; then start the same ./run.sh again"
        models.append(load(path, ["model"], advice)["model"])
    return {
        name: (
            (sum(model[name].double() for model in models) / len(models)).to(value.dtype)
            if value.is_floating_point()
            else value
        )
        for name, value in models[-1].items()
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
    for package in ("torch", "k2", "lhotse", "kaldifeat", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "commit": commit or "unknown",
        "python": sys.version.split()[0],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **versions,
    }
