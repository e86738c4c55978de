"""The command line of the toy experiments."""

import contextlib
import dataclasses
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from plateau.config import UserError
from toy_peaky import run, running
from toy_peaky.catalogue import SECTIONS
from toy_peaky.experiment import Experiment, Outcome, Section
from toy_peaky.options import Options
from toy_peaky.run import main, make_parser
from toy_peaky.summary import claims, claims_table, describe, flags, run_lengths, summarise
from toy_peaky.training import train

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "toy_peaky" / "run.py"
MANY = "--init normal --frames 12 --classes 1 --steps 4 --seeds 3:8"


def read(path: Path):
    return json.loads(path.read_text())


def the_line(text: str, name: str) -> str:
    """What is printed of a name."""
    (line,) = [line for line in text.splitlines() if line.startswith(name + "  ")]
    return line.removeprefix(name).strip()


def test_the_first_loss_is_that_of_counting(tmp_path, capsys):
    """At zero logits: T log V - log C(T), with C(T) = binom(T + 2, 4) for the target '0 1'."""
    path = tmp_path / "new" / "runs.json"
    main(["--target", "0 1", "--frames", "9", "--steps", "3", "--json", str(path)])
    (record,) = read(path)
    assert record["loss"][0] == pytest.approx(9 * math.log(3) - math.log(math.comb(11, 4)), 1e-6)
    assert len(record["loss"]) == 3
    assert "setup" not in record and "posteriors" not in record
    assert "fer_viterbi_to_ref" not in record
    first, last = record["loss"][0], record["loss"][-1]
    said = capsys.readouterr().out
    assert the_line(said, "loss") == f"{first:.6g} -> {last:.6g} nats, 3 steps"
    repeated = [field.split("x") for field in the_line(said, "Viterbi").split()]
    assert [int(x) for x, times in repeated for _ in range(int(times))] == record["viterbi"]


def test_json_holds_what_training_gives_a_line_for_each_seed(tmp_path, capsys):
    path = tmp_path / "runs.json"
    main([*MANY.split(), "--json", str(path), "--dump"])
    options = Options(init="normal", frames=12, classes=1, steps=4, seeds="3:8")
    assert read(path) == [result.record(dump=True) for result in train(options)]
    records = read(path)
    assert [record["seed"] for record in records] == [3, 4, 5, 6, 7]
    posteriors = np.array([record["posteriors"] for record in records])  # (R, T, V)
    assert posteriors.shape == (5, 12, 2)
    assert posteriors.mean(1) == pytest.approx(np.array([r["avg_softmax"] for r in records]))
    assert list(tmp_path.iterdir()) == [path]

    said = capsys.readouterr().out
    assert said.startswith("5 seeds, medians\n")
    blank = np.median(posteriors[:, :, 1].mean(1))
    assert f"1: {blank:.3f} (blank)" in the_line(said, "avg softmax")
    argmax = np.median((posteriors.argmax(-1) == 1).sum(1))
    assert the_line(said, "blank frames").startswith(f"{argmax:g} by argmax, ")
    assert the_line(said, "sharpness").startswith(f"{np.median(posteriors.max(-1).mean(1)):.3f},")
    counts = the_line(said, "seeds by blank").split(" (")[0].split()
    expected = [0] * 20
    for share in posteriors[:, :, 1].mean(1):
        expected[int(share * 20)] += 1
    assert list(map(int, counts)) == expected


def test_frame_errors_are_told_where_there_is_a_reference():
    inputs = "1x3 0x6 1x3"
    results = train(Options(model="linear", input=inputs, init="identity", steps=1))
    # The identity likes the input best, so the likeliest label is never wrong.
    assert the_line(summarise(results), "frame errors") == "0.0 % by argmax, 0.0 % by Viterbi"
    assert run_lengths(results[0].viterbi) == inputs


def test_flags_give_the_options_of_every_experiment_again():
    setups = [o for s in SECTIONS for e in s.experiments for o in e.setups.values()]
    setups.append(Options(bias=False, fsa=Path("a b.txt"), target="0 | 1", blank_bias_init=-1.5))
    for options in setups:
        given = vars(make_parser().parse_args(shlex.split(flags(options))))
        names = {field.name for field in dataclasses.fields(Options)} & given.keys()
        assert Options(**{name: given[name] for name in names}) == options
        assert len(names) == sum(
            getattr(options, field.name) != field.default for field in dataclasses.fields(Options)
        )


def blank_wins(results):
    shares = {name: runs[0].avg_softmax[-1] for name, runs in results.items()}
    return f"blank has {100 * shares['zero']:.0f} % of the time", np.bool_(shares["zero"] > 0.5)


def three_seeds(results):
    (_, _, _) = results["zero"]
    return "three", True


SMALL = Options(frames=8, target="0", classes=1, steps=3)
EXPERIMENTS = [
    Experiment(
        "blank_wins",
        "notes",
        "From zero, blank has most of the time.",
        blank_wins,
        {"zero": SMALL, "low": dataclasses.replace(SMALL, blank_bias_init=-1.0, seeds="0:2")},
        remark="A remark.",
    ),
    Experiment("three", "paper", "Three seeds.", three_seeds, {"zero": SMALL}),
    Experiment("no_runs", "paper", "Two and two make five.", lambda _: ("four", False)),
]
TINY = (Section("First", "", tuple(EXPERIMENTS[:2])), Section("Second", "", (EXPERIMENTS[2],)))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(run, "SECTIONS", TINY)
    monkeypatch.setattr(running, "EXPERIMENTS", {e.name: e for e in EXPERIMENTS})


def test_an_experiment_tells_claim_runs_and_verdict(tiny, tmp_path, capsys):
    path = tmp_path / "runs.json"
    main(["blank_wins", "--json", str(path)])
    said = capsys.readouterr().out
    (zero,), low = train(SMALL), train(EXPERIMENTS[0].setups["low"])
    assert "claim: From zero, blank has most of the time.\n" in said
    assert f"\nseen:  blank has {100 * zero.avg_softmax[1]:.0f} % of the time\nholds: yes\n" in said
    assert said.endswith("remark: A remark.\n")
    assert "low: --frames 8 --classes 1 --target 0 --blank-bias-init -1.0 --steps 3" in said
    assert read(path) == [
        {"setup": "zero", **zero.record()},
        *({"setup": "low", **result.record()} for result in low),
    ]


def test_given_flags_change_every_setup(tiny, tmp_path, capsys):
    path = tmp_path / "runs.json"
    main(["blank_wins", "--json", str(path), "--frames", "5", "--lr", "1"])
    expected = train(dataclasses.replace(SMALL, frames=5, lr=1.0))
    assert read(path)[0] == {"setup": "zero", **expected[0].record()}
    assert {len(record["viterbi"]) for record in read(path)} == {5}
    assert "zero: --frames 5 --classes 1 --target 0 --lr 1.0 --steps 3\n" in capsys.readouterr().out


def test_a_check_that_does_not_fit_the_changes_spoils_nothing(tiny, capsys):
    main(["three", "--seeds", "0:3"])
    assert "seen:  three\nholds: yes" in capsys.readouterr().out
    main(["three", "--seeds", "0:2"])
    said = capsys.readouterr().out
    assert "2 seeds, medians" in said
    assert "seen:  nothing; the check does not fit --seeds 0:2 (ValueError(" in said
    with pytest.raises(ValueError):  # without changes it is a mistake of the catalogue
        main(["three"])


def test_the_list_has_a_line_for_each(tiny, capsys):
    main(["--list"])
    assert capsys.readouterr().out.splitlines() == [
        "First",
        "  blank_wins: From zero, blank has most of the time.",
        "  three: Three seeds.",
        "Second",
        "  no_runs: Two and two make five.",
    ]


def test_the_list_names_the_whole_catalogue(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    names = [experiment.name for section in SECTIONS for experiment in section.experiments]
    assert [line.split(":")[0].strip() for line in lines if line.startswith("  ")] == names
    assert len(set(names)) == len(names)
    assert max(map(len, lines)) <= 60


def test_the_table_fits_the_width_and_says_what_failed():
    long = dataclasses.replace(EXPERIMENTS[2], claim="word " * 40, remark="why " * 40)
    sections = (TINY[0], Section("Second", "", (long,)))
    outcomes = {
        e.name: Outcome(e, {}, f"{e.name} had 12 % " + "x " * 60, e.name == "three", 1.5)
        for section in sections
        for e in section.experiments
    }
    table = claims_table(sections, outcomes, width=70)
    lines = table.splitlines()
    assert max(map(len, lines)) <= 70
    assert lines[0].split() == ["claim", "seen", "holds"]
    assert [line.split()[-1] for line in lines if line.endswith(("yes", "NO"))] == [
        "NO",
        "yes",
        "NO",
    ]
    assert table.count("word") == 40 and table.count("why") == 40
    assert "A remark." in table  # of one that does not hold
    assert lines[-1] == "1 of 3 claims hold."
    assert claims(sections, outcomes)[2] == {
        "name": "no_runs",
        "section": "Second",
        "source": "paper",
        "claim": "word " * 40,
        "seen": outcomes["no_runs"].seen,
        "holds": False,
        "remark": "why " * 40,
        "seconds": 1.5,
    }
    assert "holds: no" in describe(outcomes["no_runs"])


FSA = "0 1 0\n1 1 zero\n1\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("blank_win", "no experiment 'blank_win'; did you mean blank_wins? --list"),
        ("xyz", "no experiment 'xyz'; --list"),
        ("no_runs --lr 1 --no-bias", "takes no options: leave out --no-bias --lr 1.0"),
        ("blank_wins --model none_such", None),
        ("--topology ctx", "--topology 'ctx': there are ctc, "),
        ("--target '0 0 1' --frames 3", "the shortest has 4"),
        ("blank_wins --frames 1 --target '0 0'", "the shortest has 3"),
        ("--target '0 2' --classes 1", "label 2 is not in 0 … 1"),
        ("--target 'a b'", "--target 'a b': labels are numbers"),
        ("--fsa {tmp}/fsa.txt", "fsa.txt:2: '1 1 zero' is neither an arc"),
        ("--fsa {tmp}/none.txt", "none.txt: no such file"),
        (
            "--model ffnn --num-layers 30 --init normal --rnd-scale 1000 --input 0x3",
            "the loss of seed 0 is nan at step 1: try a lower --lr or --rnd-scale",
        ),
        ("--init normal --lr 1e308", "--lr is 1e+308; it must be at least 0 and at most 1000000"),
        ("--init normal --lr nan --seeds 4", "--lr is nan; it must be at least 0"),
        ("--seeds 5:5", "--seeds '5:5': give FIRST:END"),
        ("--frames many", None),
        ("--model ffnn", "--model ffnn reads an input: give --input"),
        ("--dump", "--dump goes with --json FILE"),
        ("--jobs 2", "--report and --jobs go with --all"),
        ("--all --lr 1", "--all runs all experiments as they are"),
        ("--all --jobs 0", "--jobs must be at least 1, not 0"),
        ("--all --report {tmp}/fsa.txt", "--report: {tmp}/fsa.txt/claims.json cannot be written"),
        ("--json {tmp}/fsa.txt/runs.json", "--json: {tmp}/fsa.txt/runs.json cannot be written"),
        ("--json {tmp}", "cannot be written: it is there and is no file"),
        ("--json /dev/null", "cannot be written: it is there and is no file"),
    ],
)
def test_mistakes_are_one_line(tiny, tmp_path, capsys, monkeypatch, command, said):
    (tmp_path / "fsa.txt").write_text(FSA)
    words = shlex.split(command.format(tmp=tmp_path))
    if "--json" in words:  # is found out before time is spent
        monkeypatch.setattr(run, "train", None)
    with pytest.raises((UserError, SystemExit)) as raised:
        main(words)
    if said is None:  # argparse ends the script itself
        message = capsys.readouterr().err.strip()
        assert raised.value.code == 2
    else:
        message = str(raised.value)
        assert said.format(tmp=tmp_path) in message
    assert message.count("\n") == 0
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["fsa.txt"]


def test_the_script_ends_without_a_traceback(tmp_path):
    """A mistake, a reader that goes away, and one that is ended, at the same time."""
    folder = tmp_path / "new"
    reading, writing = os.pipe()
    os.close(reading)
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with (
        start("no_such") as mistake,
        start("--list", stdout=writing, env=ascii_only) as cut_short,
        start("--steps", "1000000", "--json", str(folder / "runs.json")) as endless,
    ):
        os.close(writing)
        while not folder.exists():  # made when the command line has been read
            time.sleep(0.05)
            assert endless.poll() is None
        endless.send_signal(signal.SIGTERM)
        assert endless.communicate(timeout=60) == ("", "")
        assert endless.returncode == 130
        assert list(folder.iterdir()) == []
        assert cut_short.communicate(timeout=60)[1] == ""
        assert cut_short.returncode == 141
        said, complained = mistake.communicate(timeout=60)
        assert (said, mistake.returncode) == ("", 1)
        assert complained.startswith("run.py: there is no experiment 'no_such'")
        assert complained.count("\n") == 1


@contextlib.contextmanager
def start(*words: str, stdout=subprocess.PIPE, env=None) -> Iterator[subprocess.Popen]:
    """Start the script; it does not outlive the block."""
    job = subprocess.Popen(
        [sys.executable, SCRIPT, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        yield job
    finally:
        job.kill()
