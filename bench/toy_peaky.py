"""Two hundred toy runs as one batch, beside a loop over them and beside torch's CTC loss.

And the memory that 10,000 frames take. Needs no data.
"""

import dataclasses
import multiprocessing
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

# A script's folder is searched for modules: this file would be taken for the recipe of its name.
if (folder := str(Path(__file__).resolve().parent)) in sys.path:
    sys.path.remove(folder)

from plateau.config import UserError, cli
from plateau.graphs.ctc import ctc_graphs
from plateau.graphs.dense import best_paths
from plateau.io import read_json, write_json
from plateau.machine import machine
from toy_peaky.models import initial_parameters
from toy_peaky.options import Options
from toy_peaky.summary import flags
from toy_peaky.training import train

Records = list[dict[str, Any]]

OPTIONS = Options(
    model="mem", target="0", classes=1, init="normal", frames=100, steps=50, seeds="0:200"
)
COMMAND = Path(__file__).resolve().parent.parent / "toy_peaky" / "run.py"
ONE_BATCH, WHOLE_COMMAND = "one batch", "one batch, the whole command"
SECONDS_LIMIT = 3.0  # for both, on two idle cores
ORIGINAL_SECONDS = 376.0  # the notes' TensorFlow code, as issue 3 gives it
GIB_LIMIT = 2.0
LONG_STEPS = 5  # of the long runs; memory does not depend on how many
# Scores are float32 within k2. What its rounding does to the losses stays below this.
TOLERANCE = 1e-5


def as_one_batch(options: Options) -> Records:
    """What ``toy_peaky/run.py --json`` writes."""
    return [result.record() for result in train(options)]


def whole_command(options: Options) -> Records:
    """The same by ``toy_peaky/run.py``, for which Python, torch and k2 start.

    It has written the file already; the clock counts both times.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "runs.json"
        command = [sys.executable, COMMAND, *shlex.split(flags(options)), "--json", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return read_json(path)


def one_after_the_other(options: Options) -> Records:
    """The same, a seed at a time."""
    alone = [dataclasses.replace(options, seeds=str(seed)) for seed in options.seed_list]
    return [record for one in alone for record in as_one_batch(one)]


def with_torch_ctc(options: Options) -> Records:
    """The same training of ``mem`` with `torch.nn.functional.ctc_loss`, as one batch."""
    seeds, blank = options.seed_list, options.blank
    shape = (options.num_frames, options.num_labels)
    drawn = [initial_parameters(options, {"mem": shape}, seed)["mem"] for seed in seeds]
    logits = torch.stack(drawn).requires_grad_()  # (R, T, V)
    labels = [label for word in options.words for label in word]
    targets = torch.tensor([labels] * len(seeds))  # (R, N)
    target_lengths = torch.full((len(seeds),), len(labels))
    lengths = torch.full((len(seeds),), options.num_frames)
    optimizer = torch.optim.SGD([logits], lr=options.lr)
    history = []
    for step in range(options.steps):
        log_probs = logits.log_softmax(-1)
        losses = F.ctc_loss(
            log_probs.transpose(0, 1), targets, lengths, target_lengths, blank, reduction="none"
        )
        optimizer.zero_grad()
        losses.sum().backward()
        history.append(losses.detach())
        if step < options.steps - 1:
            optimizer.step()
    losses = torch.stack(history, dim=1)  # (R, steps)
    log_probs = log_probs.detach()
    posteriors = log_probs.exp()
    gamma = posteriors - logits.grad  # the gradient of the logits is p − γ
    # Blank is the last label here, and the first one in these graphs.
    blank_first = log_probs.roll(1, dims=2)
    paths = best_paths(blank_first, lengths, ctc_graphs([[n + 1 for n in labels]] * len(seeds)))
    average, average_gamma = posteriors.mean(1), gamma.mean(1)  # (R, V)
    likeliest = posteriors.argmax(-1)  # (R, T)
    sharpness = posteriors.amax(-1).mean(1)
    entropy = -(posteriors * log_probs).sum(-1).mean(1)
    return [
        {
            "seed": seed,
            "loss": losses[run].tolist(),
            "avg_softmax": average[run].tolist(),
            "avg_soft_alignment": average_gamma[run].tolist(),
            "min_blank_prob": posteriors[run, :, blank].min().item(),
            "num_blank_argmax": int((likeliest[run] == blank).sum()),
            "num_blank_viterbi": paths[run].count(0),
            "viterbi": [label - 1 if label else blank for label in paths[run]],
            "peakiness": average[run].max().item(),
            "sharpness": sharpness[run].item(),
            "entropy": entropy[run].item(),
        }
        for run, seed in enumerate(seeds)
    ]


WAYS: dict[str, Callable[[Options], Records]] = {
    ONE_BATCH: as_one_batch,
    WHOLE_COMMAND: whole_command,
    "one seed after the other": one_after_the_other,
    "one batch, torch's ctc_loss": with_torch_ctc,
}


def timed(way: Callable[[Options], Records], options: Options) -> tuple[float, Records]:
    """Seconds from the options to the written file, and what is in the file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "runs.json"
        start = time.perf_counter()
        write_json(path, way(options))
        return time.perf_counter() - start, read_json(path)


def largest_difference(ours: Records, theirs: Records, name: str) -> float:
    """Between the values of a field; of losses relative to the loss."""
    a, b = (torch.tensor([r[name] for r in records]).double() for records in (ours, theirs))
    difference = (a - b).abs()
    return (difference / b.abs() if name == "loss" else difference).max().item()


def compare(ours: Records, theirs: Records, name: str) -> str:
    """How far two ways of computing the same lie apart.

    Raises:
        RuntimeError: they do not compute the same, and their times cannot be compared.
    """
    if [record.keys() for record in ours] != [record.keys() for record in theirs]:
        raise RuntimeError(f"{name}: other outputs than those of the first way")
    loss = largest_difference(ours, theirs, "loss")
    gamma = largest_difference(ours, theirs, "avg_soft_alignment")
    if not max(loss, gamma) < TOLERANCE:
        raise RuntimeError(f"{name}: losses differ by {loss:.0e}, soft alignments by {gamma:.0e}")
    same = sum(a["viterbi"] == b["viterbi"] for a, b in zip(ours, theirs, strict=True))
    return f"{loss:12.0e}{gamma:18.0e}{same:9} of {len(ours)}"


def compare_ways(options: Options, repetitions: int) -> None:
    """Time each way, in turns, and print the table."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    records: dict[str, Records] = {}
    for way in WAYS.values():
        way(dataclasses.replace(options, seeds="0:2", steps=2))  # to warm up
    for _ in range(repetitions):
        for name, way in WAYS.items():
            taken, records[name] = timed(way, options)
            seconds[name].append(taken)
    print(f"{'':30}{'seconds':>9}{'ratio':>8}  loss differs  soft alignment  same Viterbi")
    for name in WAYS:
        ratio = median(a / b for a, b in zip(seconds[name], seconds[ONE_BATCH], strict=True))
        differences = compare(records[ONE_BATCH], records[name], name)
        print(f"{name:30}{median(seconds[name]):9.2f}{ratio:8.2f}{differences}")
    if options != OPTIONS:
        return
    ratio = ORIGINAL_SECONDS / median(seconds[ONE_BATCH])
    print(f"{'TensorFlow, as issue 3 says':30}{ORIGINAL_SECONDS:9.0f}{ratio:8.0f}  (other machine)")
    for name in (ONE_BATCH, WHOLE_COMMAND):
        met = "met" if median(seconds[name]) <= SECONDS_LIMIT else "not met"
        print(f"{name}: ≤ {SECONDS_LIMIT:g} s on two idle cores: {met}")


def long_run(options: Options) -> tuple[float, float]:
    """Seconds and GiB of memory, at its peak, of this process when it has trained ``options``."""
    start = time.perf_counter()
    as_one_batch(options)
    seconds = time.perf_counter() - start
    # Not ru_maxrss: Linux lets a process inherit that of the one that started it.
    status = Path("/proc/self/status").read_text()
    return seconds, int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 2**20


def print_memory(options: Options) -> None:
    """Each in a process of its own."""
    print(f"\n{options.frames} frames, {options.steps} steps")
    for seeds in (str(options.seed_list[0]), options.seeds):
        one = dataclasses.replace(options, seeds=seeds)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, gib = pool.apply(long_run, (one,))
        met = "met" if gib <= GIB_LIMIT else "not met"
        number = f"{len(one.seed_list)} seed{'s' if len(one.seed_list) > 1 else ''}"
        print(f"{number:30}{seconds:9.2f} s{gib:8.2f} GiB  ≤ {GIB_LIMIT:g} GiB: {met}")


def main(
    seeds: str = "0:200",
    frames: int = 100,
    steps: int = 50,
    long_frames: int = 10_000,
    repetitions: int = 5,
) -> None:
    """Print how long toy runs take as one batch, beside other ways, and what long ones need.

    Args:
        seeds: FIRST:END, as for toy_peaky/run.py
        frames: of each run
        steps: of each run
        long_frames: of the runs whose memory is measured
        repetitions: how often everything is timed; medians are printed
    """
    if repetitions < 1:
        raise UserError("--repetitions must be at least 1")
    options = dataclasses.replace(OPTIONS, seeds=seeds, frames=frames, steps=steps)
    long_options = dataclasses.replace(options, frames=long_frames, steps=LONG_STEPS)
    options.check()
    long_options.check()
    print(machine())
    print(
        f"mem, {len(options.seed_list)} seeds, {frames} frames, {steps} steps, with the file of "
        f"--json; {repetitions} repetitions, medians\n"
    )
    compare_ways(options, repetitions)
    print_memory(long_options)


if __name__ == "__main__":
    cli(main)
