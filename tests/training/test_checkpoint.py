import random

import numpy as np
import pytest
import torch

from plateau.config import UserError
from plateau.training import checkpoint


def test_average_is_the_mean_and_integers_are_the_last_ones(tmp_path):
    models = [
        {"weight": torch.tensor([1.0, 2.0]), "half": torch.tensor([1.5]).half(), "calls": 3},
        {"weight": torch.tensor([4.0, -2.0]), "half": torch.tensor([2.5]).half(), "calls": 5},
        {"weight": torch.tensor([4.0, 3.0]), "half": torch.tensor([3.5]).half(), "calls": 8},
    ]
    paths = []
    for i, model in enumerate(models):
        paths.append(tmp_path / f"{i}.pt")
        checkpoint.save({"model": {**model, "calls": torch.tensor(model["calls"])}}, paths[-1])
    averaged = checkpoint.average(paths)
    assert torch.equal(averaged["weight"], torch.tensor([3.0, 1.0]))
    assert torch.equal(averaged["half"], torch.tensor([2.5]).half())
    assert averaged["calls"].dtype == torch.int64
    assert averaged["calls"] == 8


def test_average_is_summed_in_float64(tmp_path):
    """In float32 the ones would be lost beside 1e8."""
    values = [1e8, 1.0, 1.0, 1.0, -1e8]
    paths = [tmp_path / f"{i}.pt" for i in range(len(values))]
    for path, value in zip(paths, values, strict=True):
        checkpoint.save({"model": {"weight": torch.tensor(value)}}, path)
    assert checkpoint.average(paths)["weight"].item() == np.float32(3 / 5)


def test_average_of_one_model_is_that_model(tmp_path):
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    checkpoint.save({"model": {"weight": weight}}, tmp_path / "1.pt")
    assert torch.equal(checkpoint.average([tmp_path / "1.pt"])["weight"], weight)


def test_save_that_fails_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save({"step": 1}, path)
    write = torch.save

    def torn(state, file):
        write(state, file)
        with file.open("r+b") as written:
            written.truncate(10)
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save({"step": 2}, path)
    assert checkpoint.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_load_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"last\.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "last.pt")


def test_restore_says_where_a_model_differs(tmp_path):
    model = torch.nn.Linear(2, 3)
    state = {"model": {"weight": torch.ones(3, 2), "bias": torch.ones(3)}}
    checkpoint.restore_model(model, state, tmp_path / "final.pt")
    assert torch.equal(model.weight, torch.ones(3, 2))
    for other, difference in [
        ({"weight": torch.ones(3, 2)}, r"Missing key\(s\) in state_dict: \"bias\""),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(4)}, "size mismatch for bias"),
    ]:
        with pytest.raises(UserError, match=rf"final\.pt: not the model .*{difference}"):
            checkpoint.restore_model(model, {"model": other}, tmp_path / "final.pt")


def draw() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(()).item()]


def test_random_state_goes_through_a_file_and_back(tmp_path):
    checkpoint.set_seed(5)
    draw()
    checkpoint.save(checkpoint.random_state(), tmp_path / "state.pt")
    expected = [draw(), draw()]
    checkpoint.set_seed(6)
    checkpoint.set_random_state(checkpoint.load(tmp_path / "state.pt"))
    assert [draw(), draw()] == expected


def test_seeds_give_the_same_numbers_again_and_differ():
    checkpoint.set_seed(1)
    first = draw()
    checkpoint.set_seed(2)
    second = draw()
    checkpoint.set_seed(1)
    assert draw() == first
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_environment_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    environment = checkpoint.environment.__wrapped__()
    assert environment["commit"] == "unknown"
    assert torch.__version__.startswith(environment["torch"])
    assert environment["lhotse"] != "absent"
