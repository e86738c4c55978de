"""An experiment: what somebody claims, runs that show it, and a check of what was seen."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from toy_peaky.options import Options
from toy_peaky.training import Result, train

Results = Mapping[str, list[Result]]  # of each setup, a result for each seed


@dataclass(frozen=True)
class Experiment:
    """A claim and how it is tried."""

    name: str  # on the command line
    source: str  # who says so: "notes", "paper, simulation 4.7", "open question"
    claim: str  # the expected outcome, in words
    check: Callable[[Results], tuple[str, bool]]  # what was seen, and whether the claim holds
    setups: Mapping[str, Options] = field(default_factory=dict)  # none: the check counts paths
    together: bool = False  # all setups in one batch: they differ in target, input and length only
    snapshots: tuple[int, ...] = ()  # steps that pictures need
    pictures: tuple[Callable[["Outcome"], Figure], ...] = ()
    remark: str = ""  # what to know beside: where notes and result differ, and why


@dataclass(frozen=True)
class Outcome:
    """What an experiment came to."""

    experiment: Experiment
    results: Results
    seen: str
    holds: bool
    seconds: float


@dataclass(frozen=True)
class Section:
    """A part of the story."""

    title: str
    text: str  # paragraphs, separated by empty lines
    experiments: tuple[Experiment, ...]


def run(experiment: Experiment, **changes: Any) -> Outcome:
    """Run an experiment; ``changes`` are options that differ from its setups."""
    start = time.perf_counter()
    setups = {
        name: dataclasses.replace(options, **changes) for name, options in experiment.setups.items()
    }
    experiment = dataclasses.replace(experiment, setups=setups)
    if experiment.together:
        every = iter(train(list(setups.values()), experiment.snapshots))
        results = {name: [next(every) for _ in o.seed_list] for name, o in setups.items()}
    else:
        results = {name: train(o, experiment.snapshots) for name, o in setups.items()}
    seen, holds = experiment.check(results)
    return Outcome(experiment, results, seen, bool(holds), time.perf_counter() - start)
