"""Saving, loading and checking a checkpoint, beside torch.save and torch.load. Needs no data."""

import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from plateau.config import UserError, cli
from plateau.io import replacing
from plateau.machine import machine
from plateau.training import checkpoint

State = dict[str, Any]
WIDTH = 1000  # a layer has its square as parameters
AT_MOST = 1.3  # times what it was before


def training_state(millions: int) -> State:
    """Model and optimizer of a training after a step, with this many million parameters."""
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(millions)))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": checkpoint.random_state(),
    }


def torch_save(state: State, path: Path) -> None:
    """As Plateau did it: written beside its place, flushed to disk and renamed."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def torch_load(path: Path) -> State:
    """Read without a look at the checksums."""
    return torch.load(path)


def checked_torch_load(path: Path) -> State:
    """As Plateau did it: `zipfile` compares the checksums of the archive."""
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise UserError(f"{path}: was changed")
    return torch.load(path)


@dataclass(frozen=True)
class Way:
    """A way to do it, and which way it is compared with."""

    what: str
    run: Callable[[State, Path], Any]
    suffix: str
    before: str | None = None


WAYS = {
    "torch.save": Way("save", torch_save, "pt"),
    "ours": Way("save", checkpoint.save, "safetensors", "torch.save"),
    "torch.load": Way("load", lambda _, path: torch_load(path), "pt"),
    "torch.load, checked": Way("load", lambda _, path: checked_torch_load(path), "pt"),
    "ours, checked": Way(
        "load", lambda _, path: checkpoint.load(path), "safetensors", "torch.load, checked"
    ),
}


def check_same(state: State, loaded: State) -> None:
    """See that the work was done.

    Raises:
        RuntimeError: a parameter or its second moment is another one.
    """
    moments, loaded_moments = (s.get("optimizer", {}).get("state", {}) for s in (state, loaded))
    pairs = [(value, loaded["model"][name]) for name, value in state["model"].items()]
    pairs += [(moments[i]["exp_avg_sq"], loaded_moments[i]["exp_avg_sq"]) for i in moments]
    if not all(torch.equal(a, b) for a, b in pairs):
        raise RuntimeError("what was loaded is not what was saved")


def measure(state: State, folder: Path, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each way; they take turns, and the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for repetition in range(repetitions + 1):
        for name, way in WAYS.items():
            started = time.perf_counter()
            loaded = way.run(state, folder / f"state.{way.suffix}")
            elapsed = time.perf_counter() - started
            if way.what == "load":
                check_same(state, loaded)
            del loaded
            if repetition:
                seconds[name].append(elapsed)
    return seconds


def print_rows(seconds: dict[str, list[float]]) -> None:
    """The table's part for a state."""
    for name, way in WAYS.items():
        row = f"{way.what:6}{name:22}{median(seconds[name]):8.2f} s"
        if way.before is not None:
            pairs = zip(seconds[name], seconds[way.before], strict=True)
            ratio = median(after / before for after, before in pairs)
            met = "met" if ratio <= AT_MOST else "not met"
            row += f"{ratio:8.2f}  ≤ {AT_MOST:g} × {way.before}: {met}"
        print(row)


def main(millions: int = 100, repetitions: int = 5, folder: Path = Path()) -> None:
    """Print what it takes to save, load and check a model, and the model with its optimizer.

    Args:
        millions: of parameters
        repetitions: how often everything is timed; medians are printed
        folder: where files are written for a while, on the disk that is meant
    """
    if millions < 1 or repetitions < 1:
        raise UserError("--millions and --repetitions must be at least 1")
    print(machine())
    print(f"{millions} M parameters, float32; {repetitions} repetitions, medians")
    torch.manual_seed(0)
    training = training_state(millions)
    for name, state in (
        ("the model", {"model": training["model"]}),
        ("a training: the model, AdamW's state, random state", training),
    ):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".bench-") as directory:
            seconds = measure(state, Path(directory), repetitions)
            size = (Path(directory) / "state.safetensors").stat().st_size
        print(f"\n{name}, {size / 1e6:.0f} MB")
        print_rows(seconds)


if __name__ == "__main__":
    cli(main)
