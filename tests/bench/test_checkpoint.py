import pytest
import torch

from bench import checkpoint
from bench.checkpoint import WAYS, check_same, main, measure, print_rows, training_state
from plateau.config import UserError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(checkpoint, "WIDTH", 10)


def test_the_state_is_one_of_a_training():
    state = training_state(3)
    assert sum(x.numel() for x in state["model"].values()) == 300
    moments = [x for of_one in state["optimizer"]["state"].values() for x in of_one.values()]
    assert sum(x.numel() for x in moments) == 600 + 3  # and the steps
    assert all(x.any() for x in moments)


def test_all_ways_load_what_was_saved_and_each_is_timed(tmp_path):
    state = training_state(2)
    seconds = measure(state, tmp_path, repetitions=2)
    assert {len(times) for times in seconds.values()} == {2} and seconds.keys() == WAYS.keys()
    assert all(time > 0 for times in seconds.values() for time in times)


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_times_of_what_was_lost_are_not_given(part):
    state, other = training_state(2), training_state(2)
    check_same(state, state)
    with pytest.raises(RuntimeError, match="is not what was saved"):
        check_same(state, {**state, part: other[part]})


@pytest.mark.parametrize("name", ["torch.load, checked", "ours, checked"])
def test_a_flipped_bit_is_found_by_what_is_called_checked(tmp_path, name):
    state = {"model": {"x": torch.full((50,), 7.0)}}
    for way in WAYS.values():
        way.run(state, tmp_path / f"state.{way.suffix}")
    path = tmp_path / f"state.{WAYS[name].suffix}"
    content = bytearray(path.read_bytes())
    content[content.index(state["model"]["x"].numpy().tobytes()) + 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"was changed|damaged"):
        WAYS[name].run(state, path)


def test_ratios_are_of_the_same_repetition(capsys):
    seconds = {name: [1.0, 1.0, 1.0] for name in WAYS}
    seconds["torch.save"], seconds["ours"] = [1.0, 2.0, 4.0], [2.0, 3.0, 4.0]
    print_rows(seconds)
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split()[:4] == ["save", "ours", "3.00", "s"]
    assert rows[1].endswith("  1.50  ≤ 1.3 × torch.save: not met")
    assert rows[4].endswith("1.00 s    1.00  ≤ 1.3 × torch.load, checked: met")


def test_the_table(tmp_path, capsys):
    main(millions=2, repetitions=1, folder=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert "threads, torch" in lines[0]
    assert lines[1] == "2 M parameters, float32; 1 repetitions, medians"
    assert len(lines) == 2 + 2 * (2 + len(WAYS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [{"repetitions": 0}, {"millions": 0}])
def test_mistakes(numbers):
    with pytest.raises(UserError, match="--millions and --repetitions must be at least 1"):
        main(**numbers)
