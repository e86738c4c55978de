"""Experiments of the catalogue: one by its name, or all in several processes."""

import dataclasses
import difflib
import io
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm import tqdm

from plateau.config import UserError
from toy_peaky.catalogue import SECTIONS
from toy_peaky.experiment import Experiment, Outcome, Results, run
from toy_peaky.options import Options
from toy_peaky.summary import flags

# k2 has one, and a second one for torch's small operations costs more than it brings.
THREADS = 1

EXPERIMENTS = {e.name: e for section in SECTIONS for e in section.experiments}


def run_named(name: str, changes: dict[str, Any]) -> Outcome:
    """Run an experiment of the catalogue, with changed options.

    Its check may need what was changed (a seed, a step): then the runs are given unchecked.

    Raises:
        UserError: there is none of that name, or options that cannot be run.
    """
    if name not in EXPERIMENTS:
        close = difflib.get_close_matches(name, EXPERIMENTS)
        meant = f"; did you mean {' or '.join(close)}?" if close else ";"
        raise UserError(f"there is no experiment '{name}'{meant} --list names them")
    experiment = EXPERIMENTS[name]
    changed = flags(Options(**changes))
    if changed and not experiment.setups:
        raise UserError(f"{name} counts alignments and takes no options: leave out {changed}")

    def check(results: Results) -> tuple[str, bool]:
        try:
            return experiment.check(results)
        except Exception as error:
            if not changed:
                raise
            return f"nothing; the check does not fit {changed} ({error!r})", False

    return run(dataclasses.replace(experiment, check=check), **changes)


def run_all(experiments: Sequence[Experiment], jobs: int) -> dict[str, Outcome]:
    """Run experiments of the catalogue in ``jobs`` processes; progress goes to stderr.

    Returns:
        the outcome of each, by name, in the order of ``experiments``.

    Raises:
        UserError: an experiment cannot be run, or a process was killed.
    """
    # Processes are started afresh: a copy of one that has used torch may hang. They get names and
    # give bytes, because checks are functions that cannot be sent, and tensors sent one by one
    # would each take an open file.
    pool = ProcessPoolExecutor(
        min(jobs, len(experiments)),
        multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(THREADS,),
    )
    outcomes: dict[str, Outcome] = {}
    try:
        # Processes inherit that they ignore Ctrl-C, and leave it to this one to end them.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            names: dict[Future[bytes], str] = {
                pool.submit(_outcome_of, experiment.name): experiment.name
                for experiment in sorted(experiments, key=_work, reverse=True)
            }
        finally:
            signal.signal(signal.SIGINT, interrupt)
        for future in tqdm(as_completed(names), "experiments", len(names), disable=None):
            name = names[future]
            values = torch.load(io.BytesIO(future.result()), weights_only=False)
            outcomes[name] = Outcome(EXPERIMENTS[name], **values)
    except UserError as error:
        raise UserError(f"experiment {name}: {error}") from None
    except BrokenProcessPool:
        raise UserError(
            "a process was killed, perhaps for want of memory: try fewer --jobs"
        ) from None
    finally:
        if len(outcomes) < len(experiments):
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(cancel_futures=True)
    return {experiment.name: outcomes[experiment.name] for experiment in experiments}


def _outcome_of(name: str) -> bytes:
    """All of an outcome but its experiment."""
    values = dict(vars(run(EXPERIMENTS[name])))
    del values["experiment"]
    buffer = io.BytesIO()
    torch.save(values, buffer)  # unlike pickle, keeps what runs of a batch share in one piece
    return buffer.getvalue()


def _work(experiment: Experiment) -> int:
    """Frames that it computes: the longest experiments start first."""
    return sum(o.steps * len(o.seed_list) * o.num_frames for o in experiment.setups.values())
