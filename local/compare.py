"""Several experiments' results side by side, as a table in Markdown."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from plateau.config import UserError, cli
from plateau.results import Record, read_records, shown
from plateau.training.experiment import Experiment

SEED = re.compile(r",training\.seed=\d+|-seed\d+$")  # run.sh's name of it, and one given by hand


def main(exp_dirs: list[Path], columns: str = "test:wer", seeds: bool = False) -> None:
    """Print a line for each experiment; those that differ in their seed alone share one.

    Such a line has of each figure the median, the smallest and the largest, and says of how many
    seeds; a figure that some of them lack says so itself. A seed is told by the name: `…-seed2`,
    or `…,training.seed=2`, as run.sh has it.

    Args:
        exp_dirs: experiments that are decoded (stage 8 makes their results.json)
        columns: "set/method:metric" of results.json, separated by commas. "set:metric" is the
            smallest value of all methods, "metric" alone is one of the training
        seeds: a line for each seed
    """
    wanted = [parse(column) for column in columns.split(",")]
    found: dict[str, list[list[float | None]]] = defaultdict(list)
    for exp_dir in exp_dirs:
        path = exp_dir / "results.json"
        if not path.exists():
            raise UserError(f"{path}: not there; run {Experiment(exp_dir).command}")
        records = read_records(path)
        name = str(exp_dir) if seeds else SEED.sub("", str(exp_dir))
        found[name].append([value(records, *column) for column in wanted])
    print("| experiment | " + " | ".join(columns.split(",")) + " |")
    print("|---" * (len(wanted) + 1) + "|")
    for name, rows in found.items():
        columns_of = zip(wanted, zip(*rows, strict=True), strict=True)
        cells = [cell(metric, values) for (_, _, metric), values in columns_of]
        of = f" (median of {len(rows)} seeds, min to max)" if len(rows) > 1 else ""
        print(f"| {name}{of} | " + " | ".join(cells) + " |")


def cell(metric: str, values: Sequence[float | None]) -> str:
    """A figure's median over seeds, and its range; "" where no seed has it."""
    known = [value for value in values if value is not None]
    if not known or len(values) == 1:
        return shown(metric, known[0]) if known else ""
    ends = " to ".join(shown(metric, end(known)) for end in (min, max))
    of = "" if len(known) == len(values) else f", of {len(known)}"
    return f"{shown(metric, median(known))} ({ends}{of})"


def parse(column: str) -> tuple[str, str, str]:
    """Set, method (may be empty) and metric of "set/method:metric"."""
    where, _, metric = column.rpartition(":")
    set_name, _, method = where.partition("/")
    if not metric:
        raise UserError(f"--columns: '{column}' names no metric; write set:metric")
    return set_name or "train", method, metric


def value(records: list[Record], set_name: str, method: str, metric: str) -> float | None:
    """The smallest of the values that fit; None if there is none."""
    fitting = (
        record["value"]
        for record in records
        if (record["set"], record["metric"]) == (set_name, metric)
        and method in ("", record["method"])
    )
    return min(fitting, default=None)


if __name__ == "__main__":
    cli(main)
