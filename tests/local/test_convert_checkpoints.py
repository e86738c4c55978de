import fcntl
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from plateau.config import UserError
from plateau.training import checkpoint
from tests.test_run_sh import Clone
from tests.training.test_state_file import Payload
from tests.training.test_trainer import Killed, assert_same_run, dying_loss
from tests.training.toy import make_cut_set, make_trainer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def convert(load_script):
    return load_script("convert_checkpoints").main


@pytest.fixture
def exp_dir(tmp_path) -> Path:
    (tmp_path / "x" / "checkpoints").mkdir(parents=True)
    return tmp_path / "x"


def pickle_again(checkpoints: Path) -> None:
    """What an older Plateau would have written in place of these."""
    for path in checkpoints.glob("*.safetensors"):
        torch.save(checkpoint.load(path), path.with_suffix(".pt"))
        path.unlink()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_run_goes_on_from_its_converted_checkpoints(convert, tmp_path):
    cuts = make_cut_set(tmp_path / "cuts")
    make_trainer(cuts, tmp_path / "undisturbed").run()
    exp_dir = tmp_path / "x"
    with pytest.raises(Killed):
        make_trainer(cuts, exp_dir, loss_function=dying_loss(8)).run()
    pickle_again(exp_dir / "checkpoints")
    old = names_in(exp_dir / "checkpoints")
    assert old == {"epoch-1.pt", "last.pt", "before-last.pt"}
    with pytest.raises(UserError, match=r"last\.pt: a checkpoint of an older Plateau; convert it"):
        make_trainer(cuts, exp_dir).run()
    convert([exp_dir])
    assert names_in(exp_dir / "checkpoints/old") == old
    make_trainer(cuts, exp_dir).run()
    assert_same_run(exp_dir, tmp_path / "undisturbed")


def test_an_old_experiment_is_named_and_the_command_helps(tmp_path):
    """It stays trained; as the file of the model is another one, it is decoded again."""
    clone = Clone(tmp_path / "a clone")
    clone.did()
    checkpoints = clone.exp_dir / "checkpoints"
    (checkpoints / "averaged.safetensors").unlink()
    torch.save({"model": {"x": torch.ones(3)}}, checkpoints / "averaged.pt")
    key = (checkpoints / ".done").read_text().splitlines()[0]
    size = (checkpoints / "averaged.pt").stat().st_size
    (checkpoints / ".done").write_text(f"{key}\n{size} averaged.pt\n")
    os.utime(checkpoints / "averaged.pt", (10**9, 10**9))

    with pytest.raises(UserError, match=r"convert it: .*/x'$") as by_python:
        checkpoint.load(checkpoints / "averaged.safetensors", ["model"], "advice")
    by_shell = clone.run("--exp", "x")
    assert by_shell.returncode == 1 and len(by_shell.stderr.splitlines()) == 1
    said = r"averaged\.pt: a checkpoint of an older Plateau; convert it: python (local/\S+) (.+)"
    (script, named), (same_script, same_named) = (
        re.search(said, text).groups() for text in (by_shell.stderr, str(by_python.value))
    )
    assert script == same_script
    for name in (named, same_named):  # the second time there is nothing left to do
        command = f"{sys.executable} {ROOT}/{script} {name}"
        subprocess.run(command, shell=True, check=True, cwd=clone.root)
    assert clone.did() == ["decode"]
    assert clone.did() == []
    assert torch.equal(
        checkpoint.load(checkpoints / "averaged.safetensors")["model"]["x"], torch.ones(3)
    )
    assert (checkpoints / "averaged.safetensors").stat().st_mtime == 10**9


def test_all_of_a_state_is_converted(convert, exp_dir):
    x = torch.arange(12.0).reshape(3, 4)
    state = {
        "model": {"x": x, "t": x.t(), "part": x[1:, 2], "none": torch.zeros(0, 3), "one": x.sum()},
        "others": [x.half(), x.bfloat16(), x.double(), x.long(), x.to(torch.uint8), x > 3],
        "plain": {"a": (1, 2.5, float("nan"), -0.0, True, None, "é"), 3: [{}], "big": 2**70},
    }
    torch.save(state, exp_dir / "checkpoints/averaged.pt")
    convert([exp_dir])
    found = checkpoint.load(exp_dir / "checkpoints/averaged.safetensors")
    for name, value in state["model"].items():
        assert torch.equal(found["model"][name], value)
    for there, value in zip(found["others"], state["others"], strict=True):
        assert there.dtype == value.dtype and torch.equal(there, value)
    assert repr(found["plain"]) == repr(state["plain"])


def test_numbers_of_numpy_were_arrays_once(convert, exp_dir):
    checkpoint.set_seed(3)
    state = checkpoint.random_state()
    torch.save(
        {"random": {**state, "numpy": np.random.get_state()}}, exp_dir / "checkpoints/last.pt"
    )
    expected = np.random.rand(3)
    convert([exp_dir])
    found = checkpoint.load(exp_dir / "checkpoints/last.safetensors")
    assert found["random"]["numpy"] == state["numpy"]
    checkpoint.set_random_state(found["random"])
    assert (np.random.rand(3) == expected).all()


def payloads(evil: Path) -> dict[str, bytes]:
    """Pickles that make a file, by each of the instructions that name what is called."""
    name = str(evil).encode()
    arguments = b"(V%s\nVw\nt" % name
    return {
        "GLOBAL": b"cio\nopen\n" + arguments + b"R.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02io\x8c\x04open\x93" + arguments + b"R.",
        "INST": b"(V%s\nVw\niio\nopen\n." % name,
        "OBJ": b"(cio\nopen\nV%s\nVw\no." % name,
        "through torch": b"ctorch.storage\nio.open\n" + arguments + b"R.",
        "in a state": b"ccollections\nOrderedDict\n)R}Vx\ncio\nopen\n" + arguments + b"Rsb.",
    }


@pytest.mark.parametrize("instruction", payloads(Path("evil")))
def test_code_in_a_checkpoint_is_not_run(convert, exp_dir, instruction):
    evil, path = exp_dir / "evil", exp_dir / "checkpoints/averaged.pt"
    content = payloads(evil)[instruction]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("averaged/data.pkl", content)
    with pytest.raises(UserError, match="not read, for it would call") as error:
        convert([exp_dir])
    assert str(error.value).startswith(f"{path}: damaged, or no checkpoint: ")
    assert not evil.exists() and names_in(path.parent) == {"averaged.pt"}
    if instruction != "through torch":
        pickle.loads(content)  # the payload is one
        assert evil.exists()


def archive(state: object) -> tuple[bytearray, int]:
    """A zip archive as plain as can be, and where its directory starts."""
    saved, plain = io.BytesIO(), io.BytesIO()
    torch.save(state, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(plain, "w") as file:
        for name in source.namelist():
            file.writestr(f"x/{Path(name).name}", source.read(name))
        start = file.fp.tell()
    return bytearray(plain.getvalue()), start


def test_code_that_torch_alone_finds_in_an_archive_is_not_run(convert, exp_dir):
    """Its end says where the directory starts; zipfile looks right before the end."""
    evil, path = exp_dir / "evil", exp_dir / "checkpoints/averaged.pt"
    (bad, bad_start), (good, start) = archive({"model": Payload(evil)}), archive({"model": {}})
    bad, end = bad[:-22], good[-22:]  # the record at the end
    entry = start
    while good[entry : entry + 4] == b"PK\1\2":  # zipfile counts from where it must have started
        at = int.from_bytes(good[entry + 42 : entry + 46], "little")
        good[entry + 42 : entry + 46] = (at + bad_start - start).to_bytes(4, "little", signed=True)
        entry += 46 + int.from_bytes(good[entry + 28 : entry + 30], "little")
    end[16:20] = bad_start.to_bytes(4, "little")
    path.write_bytes(bad + good[:-22] + end)
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None and b"open" not in file.read("x/data.pkl")
    convert([exp_dir])
    assert checkpoint.load(path.with_suffix(".safetensors")) == {"model": {}}
    assert not evil.exists()
    torch.load(path.parent / "old" / path.name)
    assert evil.exists()


def torch_script(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


DAMAGE = {
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"model": {}})),
    "as torch.save wrote": lambda path: torch.save({"model": {"x": Payload(path)}}, path),
    "a program": torch_script,
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "a bit": lambda path: path.write_bytes(path.read_bytes().replace(b"\xe0\x40", b"\xe0\x42", 1)),
    "a set": lambda path: torch.save({"model": {}, "x": b"bytes"}, path),
    "a list": lambda path: torch.save([1], path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_named_and_stays(convert, exp_dir, damage):
    path = exp_dir / "checkpoints/last.pt"
    torch.save({"model": {"x": torch.full((50,), 7.0)}}, path)
    whole = path.read_bytes()
    DAMAGE[damage](path)
    damaged = path.read_bytes()
    assert damaged != whole
    with pytest.raises(UserError) as error:
        convert([exp_dir])
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}: damaged, or no checkpoint: ")
    assert second == "move it away, then start the same command again"
    assert names_in(path.parent) == {"last.pt"} and path.read_bytes() == damaged
    path.rename(exp_dir / "away")
    convert([exp_dir])


def test_a_conversion_that_was_killed_goes_on(convert, exp_dir):
    old, new = exp_dir / "checkpoints/last.pt", exp_dir / "checkpoints/last.safetensors"
    torch.save({"model": {"x": torch.ones(2)}}, old)
    checkpoint.save({"model": {"x": torch.ones(2)}}, new)
    convert([exp_dir])
    assert names_in(exp_dir / "checkpoints") == {"last.safetensors", "old"}


@pytest.mark.parametrize("x", [torch.zeros(2), torch.ones(2).long(), torch.ones(2, 1), 1])
def test_what_was_trained_meanwhile_is_not_overwritten(convert, exp_dir, x):
    old, new = exp_dir / "checkpoints/last.pt", exp_dir / "checkpoints/last.safetensors"
    torch.save({"model": {"x": torch.ones(2)}}, old)
    checkpoint.save({"model": {"x": x}}, new)
    contents = old.read_bytes(), new.read_bytes()
    with pytest.raises(UserError, match=r"last\.safetensors: there already, and not what .*pt h"):
        convert([exp_dir])
    assert contents == (old.read_bytes(), new.read_bytes())


def test_old_files_that_were_kept_are_not_overwritten(convert, exp_dir):
    old = exp_dir / "checkpoints/last.pt"
    for step in range(2):
        torch.save({"step": step}, old)
        if step == 0:
            convert([exp_dir])
    with pytest.raises(UserError, match=r"old/last\.pt: there already, so \S+/last\.pt cannot"):
        convert([exp_dir])
    assert torch.load(exp_dir / "checkpoints/old/last.pt") == {"step": 0}


def test_not_while_a_run_works_there(convert, exp_dir):
    torch.save({"step": 1}, exp_dir / "checkpoints/last.pt")
    with (exp_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="x: another run works there; wait for its end"):
            convert([exp_dir])
    convert([exp_dir])
    with pytest.raises(UserError, match="y: not an experiment: there is no folder checkpoints"):
        convert([exp_dir.with_name("y")])
