import dataclasses

import pytest

from bench import toy_peaky
from bench.toy_peaky import (
    OPTIONS,
    compare,
    main,
    one_after_the_other,
    timed,
    whole_command,
    with_torch_ctc,
)
from plateau.config import UserError

SMALL = dataclasses.replace(OPTIONS, frames=12, steps=6, seeds="3:6")


@pytest.fixture(scope="module")
def batch():
    return timed(toy_peaky.as_one_batch, SMALL)[1]


@pytest.mark.parametrize("target", ["0", "0 0 1"])
@pytest.mark.parametrize("way", [one_after_the_other, with_torch_ctc])
def test_all_ways_compute_the_same(way, target):
    options = dataclasses.replace(SMALL, target=target, classes=2)
    ours, theirs = toy_peaky.as_one_batch(options), way(options)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-6), name


def test_the_whole_command_gives_the_same(batch):
    assert whole_command(SMALL) == batch


def test_what_is_timed_is_the_file_too(batch):
    assert [record["seed"] for record in batch] == [3, 4, 5]
    assert [len(record["loss"]) for record in batch] == [6] * 3
    assert timed(lambda _: batch, SMALL)[1] == batch


@pytest.mark.parametrize("changes", [{"lr": 0.1001}, {"init": "zero"}, {"seeds": "4:7"}])
def test_times_of_other_computations_are_not_compared(batch, changes):
    other = with_torch_ctc(dataclasses.replace(SMALL, **changes))
    with pytest.raises(RuntimeError, match="torch: losses differ by"):
        compare(batch, other, "torch")


def test_outputs_that_are_left_out_are_noticed(batch):
    poorer = [{k: v for k, v in record.items() if k != "viterbi"} for record in batch]
    with pytest.raises(RuntimeError, match="other outputs"):
        compare(batch, poorer, "poorer")


@pytest.fixture
def no_command(monkeypatch):
    """The whole command has a test of its own."""
    monkeypatch.setitem(toy_peaky.WAYS, toy_peaky.WHOLE_COMMAND, toy_peaky.as_one_batch)


def test_the_table(capsys, no_command):
    main(seeds="0:2", frames=10, steps=2, long_frames=30, repetitions=1)
    lines = capsys.readouterr().out.splitlines()
    assert "threads, torch" in lines[0]
    shown = [line for line in lines if line.startswith("one ")]
    assert [line.split("  ")[0] for line in shown] == list(toy_peaky.WAYS)
    assert all(line.endswith("2 of 2") for line in shown)
    assert not any("TensorFlow" in line for line in lines)  # that was another computation
    # Each long run has a process of its own: what torch alone takes, and no more than that twice.
    assert [line.split("  ")[0] for line in lines[-2:]] == ["1 seed", "2 seeds"]
    assert all(0.1 < float(line.split()[-6]) < 0.6 for line in lines[-2:])


def test_limits_and_the_original_are_for_the_standard_runs(capsys, monkeypatch, no_command):
    monkeypatch.setattr(toy_peaky, "timed", lambda way, options: (0.5, RECORDS))
    toy_peaky.compare_ways(OPTIONS, repetitions=3)
    said = capsys.readouterr().out
    assert "376     752  (other machine)" in said
    assert said.count("≤ 3 s on two idle cores: met\n") == 2
    monkeypatch.setattr(toy_peaky, "timed", lambda way, options: (3.5, RECORDS))
    toy_peaky.compare_ways(OPTIONS, repetitions=3)
    assert capsys.readouterr().out.count("≤ 3 s on two idle cores: not met\n") == 2


RECORDS = [{"loss": [2.0], "avg_soft_alignment": [0.5, 0.5], "viterbi": [0, 1]}]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"repetitions": 0}, "--repetitions must be at least 1"),
        ({"frames": 0}, "--frames"),
        ({"long_frames": 0}, "--frames"),
        ({"seeds": "x"}, "--seeds 'x'"),
    ],
)
def test_mistakes(numbers, said, capsys):
    with pytest.raises(UserError, match=said):
        main(**numbers)
    assert capsys.readouterr().out == ""
