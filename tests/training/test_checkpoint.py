import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from plateau.config import UserError
from plateau.training import checkpoint
from plateau.training.state_file import write_state
from tests.training.test_state_file import Payload


def test_average_is_the_mean_and_integers_are_the_last_ones(tmp_path):
    models = [
        {"weight": torch.tensor([1.0, 2.0]), "half": torch.tensor([1.5]).half(), "calls": 3},
        {"weight": torch.tensor([4.0, -2.0]), "half": torch.tensor([2.5]).half(), "calls": 5},
        {"weight": torch.tensor([4.0, 3.0]), "half": torch.tensor([3.5]).half(), "calls": 8},
    ]
    paths = []
    for i, model in enumerate(models):
        paths.append(tmp_path / f"{i}.safetensors")
        checkpoint.save({"model": {**model, "calls": torch.tensor(model["calls"])}}, paths[-1])
    averaged = checkpoint.average(paths)
    assert torch.equal(averaged["weight"], torch.tensor([3.0, 1.0]))
    assert torch.equal(averaged["half"], torch.tensor([2.5]).half())
    assert averaged["calls"].dtype == torch.int64
    assert averaged["calls"] == 8


def test_average_is_summed_in_float64(tmp_path):
    """In float32 the ones would be lost beside 1e8."""
    values = [1e8, 1.0, 1.0, 1.0, -1e8]
    paths = [tmp_path / f"{i}.safetensors" for i in range(len(values))]
    for path, value in zip(paths, values, strict=True):
        checkpoint.save({"model": {"weight": torch.tensor(value)}}, path)
    assert checkpoint.average(paths)["weight"].item() == np.float32(3 / 5)


def test_average_of_one_model_is_that_model(tmp_path):
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    checkpoint.save({"model": {"weight": weight}}, tmp_path / "1.safetensors")
    assert torch.equal(checkpoint.average([tmp_path / "1.safetensors"])["weight"], weight)


def test_save_that_fails_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    checkpoint.save({"step": 1}, path)
    write = checkpoint.write_state

    def torn(state, path):
        write(state, path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "write_state", torn)
    said = r"could not be written: No space left on device; there are \d+ MB free"
    with pytest.raises(UserError, match=said):
        checkpoint.save({"step": 2}, path, keep=True)
    assert checkpoint.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits of file sizes are Unix's")
def test_a_disk_without_room_is_a_line_and_loses_nothing(tmp_path):
    """With a limit of the size of files, which the operating system enforces."""
    path = tmp_path / "last.safetensors"
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
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_the_one_before_is_kept_on_demand(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save({"step": step}, tmp_path / "last.safetensors", keep=True)
    assert checkpoint.load(tmp_path / "last.safetensors") == {"step": 3}
    assert checkpoint.load(tmp_path / "before-last.safetensors") == {"step": 2}


def flip(path: Path) -> None:
    """Change a bit of a parameter."""
    content = bytearray(path.read_bytes())
    at = content.index(torch.full((50,), 7.0).numpy().tobytes())
    content[at + 2] ^= 64
    path.write_bytes(content)


def as_file(header: object) -> bytes:
    """A file of safetensors with this header, and 8 bytes of tensors."""
    text = header if isinstance(header, str) else json.dumps(header)
    return len(text).to_bytes(8, "little") + text.encode() + bytes(8)


def of_state(text: str) -> bytes:
    """A file with this state and no tensors, and the right checksum."""
    header = {"__metadata__": {"state": text, "crc32": f"{zlib.crc32(text.encode()):08x}"}}
    return as_file(header)[:-8]


VECTOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "garbage": lambda path: path.write_bytes(random.Random(0).randbytes(3000)),
    "a bit": flip,
    "text": lambda path: path.write_text("<html>not found</html>"),
    "another pickle": lambda path: path.write_bytes(pickle.dumps({"model": {}})),
    "a checkpoint of an older Plateau": lambda path: torch.save({"model": {}}, path),
    "another program's": lambda path: save_file({"model": torch.ones(2)}, path),
    "another state": lambda path: write_state([1, 2], path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "averaged.safetensors"
    checkpoint.save({"model": {"weight": torch.full((50,), 7.0)}}, path)
    DAMAGE[damage](path)
    with pytest.raises(checkpoint.Damaged) as error:
        checkpoint.load(path, ["model"], "what to do")
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}: ") and second == "what to do"


@pytest.mark.parametrize("name", ["averaged.safetensors", "averaged.pt"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, name):
    path = tmp_path / name
    torch.save({"model": Payload(tmp_path / "evil")}, path)
    for asked_for in (path, tmp_path / "averaged.safetensors"):
        with pytest.raises(UserError, match=r"damaged|a checkpoint of an older Plateau"):
            checkpoint.load(asked_for, ["model"])
    assert not (tmp_path / "evil").exists()
    torch.load(path)  # the payload is one
    assert (tmp_path / "evil").exists()


HEADERS = {
    "length": (2**63).to_bytes(8, "little") + b"{}",
    "length beyond the end": (10**6).to_bytes(8, "little") + b"{}",
    "no object": as_file("[]"),
    "deep": as_file("[" * 10**5),
    "offsets beyond the end": as_file({"x": {**VECTOR, "data_offsets": [0, 2**62]}}),
    "offsets that overlap": as_file({"x": VECTOR, "y": VECTOR}),
    "offsets that are none": as_file({"x": {**VECTOR, "data_offsets": ["a", None]}}),
    "a gap": as_file({"x": {**VECTOR, "data_offsets": [4, 12]}}),
    "a type": as_file({"x": {**VECTOR, "dtype": "PYTHON"}}),
    "a shape": as_file({"x": {**VECTOR, "shape": [2**40, 2**40]}}),
    "metadata": as_file({"__metadata__": [1], "x": VECTOR}),
    "no checksum": as_file({"__metadata__": {"state": "{}"}, "x": VECTOR}),
    "a checksum": as_file({"__metadata__": {"state": "{}", "crc32": "00000000"}, "x": VECTOR}),
    # The checksum is right here.
    "a state that is no JSON": of_state("model"),
    "a deep state": of_state("[" * 10**5 + "]" * 10**5),
    "a tensor that is not there": of_state('{"model": {"$tensor": "model.x"}}'),
    "a tensor's name that is none": of_state('{"model": {"$tensor": []}}'),
    "a tuple that is none": of_state('{"model": {"$tuple": 3}}'),
    "items that are none": of_state('{"model": {"$items": [[1]]}}'),
    "a key that is none": of_state('{"model": {"$items": [[{}, 1]]}}'),
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_made_by_an_enemy_is_damage(tmp_path, header):
    path = tmp_path / "last.safetensors"
    path.write_bytes(HEADERS[header])
    with pytest.raises(checkpoint.Damaged, match=r"last\.safetensors: damaged \(\d+ bytes\): \S"):
        checkpoint.load(path)


def test_headers_without_a_mistake_are_read(tmp_path):
    """So that those above are refused for their mistake."""
    path = tmp_path / "last.safetensors"
    path.write_bytes(of_state('{"model": {"$items": [[1, {"$tuple": []}]]}}'))
    assert checkpoint.load(path) == {"model": {1: ()}}
    path.write_bytes(as_file({"x": VECTOR}))
    assert torch.equal(load_file(path)["x"], torch.zeros(2))


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(tmp_path):
    (tmp_path / "last.safetensors").mkdir()
    with pytest.raises(UserError, match=r"tensors: cannot be read: Is a directory") as error:
        checkpoint.load(tmp_path / "last.safetensors")
    assert not isinstance(error.value, checkpoint.Damaged)


def test_load_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"last\.safetensors: no such checkpoint"):
        checkpoint.load(tmp_path / "last.safetensors")


def test_restore_says_where_a_model_differs(tmp_path):
    model = torch.nn.Linear(2, 3)
    state = {"model": {"weight": torch.ones(3, 2), "bias": torch.ones(3)}}
    checkpoint.restore_model(model, state, tmp_path / "final.safetensors")
    assert torch.equal(model.weight, torch.ones(3, 2))
    for other, difference in [
        ({"weight": torch.ones(3, 2)}, r"Missing key\(s\) in state_dict: \"bias\""),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(4)}, "size mismatch for bias"),
    ]:
        with pytest.raises(UserError, match=rf"final\.safetensors: not the model .*{difference}"):
            checkpoint.restore_model(model, {"model": other}, tmp_path / "final.safetensors")


def draw() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(()).item()]


def test_random_state_goes_through_a_file_and_back(tmp_path):
    checkpoint.set_seed(5)
    draw()
    checkpoint.save(checkpoint.random_state(), tmp_path / "state.safetensors")
    expected = [draw(), draw()]
    checkpoint.set_seed(6)
    checkpoint.set_random_state(checkpoint.load(tmp_path / "state.safetensors"))
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
