import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

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
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", torn)
    said = r"last\.pt: could not be written: No space left on device; there are \d+ MB free"
    with pytest.raises(UserError, match=said):
        checkpoint.save({"step": 2}, path, keep=True)
    assert checkpoint.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits of file sizes are Unix's")
def test_a_disk_without_room_is_a_line_and_loses_nothing(tmp_path):
    """With a limit of the size of files, which the operating system enforces."""
    path = tmp_path / "last.pt"
    checkpoint.save({"step": 1}, path)
    script = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from plateau.config import user_errors\n"
        "from plateau.training import checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "with user_errors():\n"
        "    checkpoint.save({'step': torch.zeros(100_000)}, Path(sys.argv[1]), keep=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{path}: could not be written: File too large; there are " in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 2
    assert checkpoint.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_the_one_before_is_kept_on_demand(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save({"step": step}, tmp_path / "last.pt", keep=True)
    assert checkpoint.load(tmp_path / "last.pt") == {"step": 3}
    assert checkpoint.load(tmp_path / "before-last.pt") == {"step": 2}


def flip(path: Path) -> None:
    """Change a bit of a parameter."""
    content = bytearray(path.read_bytes())
    at = content.index(torch.full((50,), 7.0).numpy().tobytes())
    content[at + 2] ^= 64
    path.write_bytes(content)


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "garbage": lambda path: path.write_bytes(random.Random(0).randbytes(3000)),
    "a bit": flip,
    "text": lambda path: path.write_text("<html>not found</html>"),
    "another pickle": lambda path: path.write_bytes(pickle.dumps({"model": {}})),
    "another checkpoint": lambda path: torch.save([1, 2], path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "averaged.pt"
    checkpoint.save({"model": {"weight": torch.full((50,), 7.0)}}, path)
    DAMAGE[damage](path)
    with pytest.raises(checkpoint.Damaged) as error:
        checkpoint.load(path, ["model"], "what to do")
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}: ") and second == "what to do"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("where", ["options", "model"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, where):
    path = tmp_path / "averaged.pt"
    state = {"model": {"weight": torch.ones(2)}, "options": {}}
    torch.save(state | {where: {"x": Payload(tmp_path / "evil")}}, path)
    with pytest.raises(UserError, match=r"averaged\.pt: .* not read, for it would call io open"):
        checkpoint.load(path, ["model"])
    assert not (tmp_path / "evil").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "evil").exists()


def test_code_behind_the_name_of_good_data_is_not_run(tmp_path):
    path = tmp_path / "averaged.pt"
    torch.save({"model": {"x": Payload(tmp_path / "evil")}}, path)
    torch.save({"model": {}}, tmp_path / "good.pt")
    good = zipfile.ZipFile(tmp_path / "good.pt").read("good/data.pkl")
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("averaged/data.pkl", good)
    with pytest.raises(UserError, match="two files in it have one name"):
        checkpoint.load(path)
    assert not (tmp_path / "evil").exists()


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(tmp_path):
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(UserError, match=r"last\.pt: cannot be read: Is a directory") as error:
        checkpoint.load(tmp_path / "last.pt")
    assert not isinstance(error.value, checkpoint.Damaged)


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
