"""Checkpoints: all that a run needs to go on, or that a model needs to be used."""

import functools
import platform
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plateau.config import UserError
from plateau.io import replacing


class Damaged(UserError):
    """A checkpoint that is there, and that is not whole."""


def save(state: dict[str, Any], path: Path, before: Path | None = None) -> None:
    """Write a checkpoint; a crash leaves the one that was there or the new one.

    Args:
        state: what to write.
        path: where.
        before: where the one that was there goes.

    Raises:
        UserError: it cannot be written; the one that was there still is.
    """
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
            if before is not None and path.exists():
                path.replace(before)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        free = shutil.disk_usage(path.parent).free / 1e6
        raise UserError(
            f"{path}: could not be written: {_first_line(error)}; there are {free:.0f} MB free\n"
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
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
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
