"""Toy experiments on the peaky behaviour of CTC: one of the catalogue, one of your own, or all."""

import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import torch

from plateau.config import Parser, UserError, add_arguments, user_errors
from plateau.io import write_json
from toy_peaky.catalogue import SECTIONS
from toy_peaky.options import Options
from toy_peaky.report import write_report
from toy_peaky.running import EXPERIMENTS, THREADS, run_all, run_named
from toy_peaky.summary import claims, claims_table, describe, summarise
from toy_peaky.training import train


def make_parser() -> Parser:
    """The command line: what is below, and a flag for each option of an experiment."""
    parser = Parser(description=__doc__, usage="%(prog)s [EXPERIMENT] [options] | --list | --all")
    parser.add_argument("experiment", nargs="?", metavar="EXPERIMENT", help="one of --list")
    parser.add_argument("--list", action="store_true", help="name the experiments")
    parser.add_argument("--all", action="store_true", help="run them all: table and report")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="with --all: its folder (exp/toy_peaky)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="with --all: processes (number of cores)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write a list with an object for each seed"
    )
    parser.add_argument("--dump", action="store_true", help="with --json: the posteriors, too")
    options = parser.add_argument_group("options of an experiment, or changes of a named one")
    add_arguments(options, Options, only_given=True)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks.

    Raises:
        UserError: it cannot be done.
    """
    torch.set_num_threads(THREADS)
    args = make_parser().parse_args(argv)
    names = [field.name for field in dataclasses.fields(Options)]
    changes = {name: value for name, value in vars(args).items() if name in names}
    if args.list:
        print_list()
        return
    if args.all:
        if args.experiment or changes or args.json or args.dump:
            raise UserError("--all runs all experiments as they are: beside it --report and --jobs")
        jobs = len(os.sched_getaffinity(0)) if args.jobs is None else args.jobs
        if jobs < 1:
            raise UserError(f"--jobs must be at least 1, not {jobs}")
        report_all(args.report or Path("exp/toy_peaky"), jobs)
        return
    if args.report or args.jobs is not None:
        raise UserError("--report and --jobs go with --all")
    if args.dump and not args.json:
        raise UserError("--dump goes with --json FILE")
    if args.json:
        check_writable("--json", args.json)
    if args.experiment:
        outcome = run_named(args.experiment, changes)
        print(describe(outcome))
        records = [
            {"setup": setup, **result.record(args.dump)}
            for setup, results in outcome.results.items()
            for result in results
        ]
    else:
        options = Options(**changes)
        results = train(options)
        print(summarise(results))
        records = [result.record(args.dump) for result in results]
    if args.json:
        write_json(args.json, records)


def print_list() -> None:
    """Name and claim of each experiment, by section; shortened to the terminal if there is one."""
    width = shutil.get_terminal_size((10_000, 24)).columns
    for section in SECTIONS:
        print(section.title)
        for experiment in section.experiments:
            print("  " + shorten(f"{experiment.name}: {experiment.claim}", width - 2))


def report_all(directory: Path, jobs: int) -> None:
    """Run all experiments; print the table, and write claims.json and the report.

    Raises:
        UserError: something cannot be run or written.
    """
    start = time.perf_counter()
    check_writable("--report", directory / "claims.json")
    outcomes = run_all(list(EXPERIMENTS.values()), jobs)
    print(claims_table(SECTIONS, outcomes, shutil.get_terminal_size((100, 24)).columns))
    write_json(directory / "claims.json", claims(SECTIONS, outcomes))
    page = write_report(SECTIONS, outcomes, directory)
    print(f"{page} ({time.perf_counter() - start:.0f} s)")


def check_writable(flag: str, path: Path) -> None:
    """Find out before time is spent whether a file can be written.

    Raises:
        UserError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        if path.exists() and not path.is_file():
            raise OSError(0, "it is there and is no file")
    except OSError as error:
        raise UserError(f"{flag}: {path} cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: ends its processes, too
    sys.stdout.reconfigure(errors="replace")  # θ on a terminal that has none
    try:
        with user_errors():
            main()
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough, as in --list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
