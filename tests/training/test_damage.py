"""Checkpoints that are damaged, a disk or memory that is full: what the trainer says and does."""

import errno
import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
import torch

from plateau.config import UserError
from plateau.training import checkpoint
from plateau.training.checkpoint import BEFORE_LAST, LAST
from plateau.training.trainer import STATE
from tests.training.test_checkpoint import DAMAGE
from tests.training.test_trainer import (
    Killed,
    assert_bit_equal,
    assert_same_run,
    dying_loss,
    final_model,
)
from tests.training.toy import make_loader, make_trainer, toy_loss


def bits_of(path: Path, part: str) -> list[int]:
    """Where the bits of a checkpoint's tensors are, of the model or of the optimizer."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:start])
    spans = [tensors[name]["data_offsets"] for name in tensors if name.startswith(f"{part}.")]
    return [8 * (start + byte) + bit for a, b in spans for byte in range(a, b) for bit in range(8)]


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flip_one(path: Path, part: str) -> None:
    bits = bits_of(path, part) or bits_of(path, "model")  # AdamW has no state before the first step
    path.write_bytes(flipped(path.read_bytes(), random.Random(part).choice(bits)))


def last_of_a_killed_run(cuts, exp_dir) -> Path:
    with pytest.raises(Killed):
        make_trainer(cuts, exp_dir, loss_function=dying_loss(8)).run()
    return exp_dir / "checkpoints" / LAST


def assert_the_one_before_is_taken(last: Path, content: bytes, capsys) -> None:
    """Where the last checkpoint has this content."""
    last.write_bytes(content)
    path, state = checkpoint.newest(last.parent, STATE, is_main=True)
    assert path.name == BEFORE_LAST and set(STATE) <= state.keys()
    assert not last.exists() and f"{last}: damaged" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_every_flipped_bit_is_found_and_the_one_before_taken(cuts, tmp_path, capsys, part):
    last = last_of_a_killed_run(cuts, tmp_path)
    whole = last.read_bytes()
    for bit in random.Random(0).sample(bits_of(last, part), 200):
        assert_the_one_before_is_taken(last, flipped(whole, bit), capsys)
    last.write_bytes(whole)
    assert checkpoint.newest(last.parent, STATE, is_main=True)[0] == last


def test_a_checkpoint_cut_anywhere_is_found_and_the_one_before_taken(cuts, tmp_path, capsys):
    last = last_of_a_killed_run(cuts, tmp_path)
    whole = last.read_bytes()
    for length in [0, 1, *random.Random(0).sample(range(2, len(whole) - 1), 17), len(whole) - 1]:
        assert_the_one_before_is_taken(last, whole[:length], capsys)


FLIPS = {
    "a bit of the model": lambda path: flip_one(path, "model"),
    "a bit of the optimizer": lambda path: flip_one(path, "optimizer"),
}


@pytest.mark.parametrize("call", [0, 1, 3, 8, None])
@pytest.mark.parametrize("damage", ["cut short", "empty", "garbage", *FLIPS])
def test_a_damaged_last_checkpoint_is_said_and_the_one_before_taken(
    cuts, undisturbed, tmp_path, capsys, call, damage
):
    """Of a run that was killed, and of one that ended (call is None)."""
    if call is None:
        make_trainer(cuts, tmp_path).run()
    else:
        with pytest.raises(Killed):
            make_trainer(cuts, tmp_path, loss_function=dying_loss(call)).run()
    last = tmp_path / "checkpoints" / "last.safetensors"
    if call in (0, 1):  # before the first checkpoint but the one of the beginning
        (tmp_path / "checkpoints" / "before-last.safetensors").write_bytes(last.read_bytes())
    (DAMAGE | FLIPS)[damage](last)
    capsys.readouterr()
    make_trainer(cuts, tmp_path).run()
    said = capsys.readouterr().out
    assert f"{last}: damaged (" in said and "and the one before it is taken" in said
    assert f"going on from {last.with_name('before-last.safetensors')}" in said
    assert last.with_name("damaged-last.safetensors").exists()
    assert_same_run(tmp_path, undisturbed)


def test_killed_between_two_renames_and_resumed(cuts, undisturbed, tmp_path):
    with pytest.raises(Killed):
        make_trainer(cuts, tmp_path, loss_function=dying_loss(8)).run()
    (tmp_path / "checkpoints" / "last.safetensors").unlink()
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


def follow(advice: str) -> None:
    """Run the shell command that a message names, between a colon and a semicolon."""
    (command,) = re.findall(r": (rm .*?);", advice)
    subprocess.run(command, shell=True, check=True)


def test_two_damaged_checkpoints_are_named_and_the_advice_helps(cuts, undisturbed, tmp_path):
    with pytest.raises(Killed):
        make_trainer(cuts, tmp_path, loss_function=dying_loss(8)).run()
    for name in ("last.safetensors", "before-last.safetensors"):
        DAMAGE["cut short"](tmp_path / "checkpoints" / name)
    with pytest.raises(UserError) as error:
        make_trainer(cuts, tmp_path).run()
    assert f"/{LAST}: damaged" in str(error.value) and f"/{BEFORE_LAST}" in str(error.value)
    follow(str(error.value))
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


def test_a_damaged_model_of_an_epoch_is_named_and_the_advice_helps(cuts, tmp_path, capsys):
    make_trainer(cuts, tmp_path).run()
    other = checkpoint.load(tmp_path / "checkpoints/epoch-2.safetensors")["model"]
    (tmp_path / "checkpoints/averaged.safetensors").unlink()
    DAMAGE["cut short"](tmp_path / "checkpoints/epoch-3.safetensors")
    with pytest.raises(UserError, match=r"epoch-3\.safetensors: damaged") as error:
        make_trainer(cuts, tmp_path).run()
    follow(str(error.value))
    capsys.readouterr()
    make_trainer(cuts, tmp_path).run()
    assert "averaged over 1 epochs; epoch-3.safetensors is not there" in capsys.readouterr().out
    assert_bit_equal(final_model(tmp_path), other)
    (tmp_path / "checkpoints/epoch-2.safetensors").unlink()
    with pytest.raises(UserError, match="so there is no model") as error:
        make_trainer(cuts, tmp_path).run()
    follow(str(error.value))
    make_trainer(cuts, tmp_path).run()
    assert final_model(tmp_path)


def test_no_room_for_a_checkpoint_is_a_line_and_the_run_goes_on_later(
    cuts, undisturbed, tmp_path, monkeypatch
):
    write, calls = checkpoint.write_state, iter(range(10**6))

    def full(state, path):
        write(state, path)
        if next(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(UserError, match="MB free"):
        patched.setattr(checkpoint, "write_state", full)
        make_trainer(cuts, tmp_path).run()
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


def test_memory_that_runs_out_names_the_longest_utterance(cuts, tmp_path):
    def greedy(model, batch):
        torch.empty(10**16)  # more than any machine can address
        return toy_loss(model, batch)

    with pytest.raises(UserError) as error:
        make_trainer(cuts, tmp_path, loss_function=greedy).run()
    batch = next(make_loader(cuts[:-2], shuffle=True).batches())
    longest = max(batch.ids, key=lambda id: cuts[id].duration)
    first, second = str(error.value).splitlines()
    assert f"on a batch of {len(batch.ids)} utterances" in first
    assert f"the longest is {longest}, {cuts[longest].duration:.1f} s" in first
    assert second.startswith("lower loading.max_duration (what was said: ")
