"""Checkpoints that are damaged, a disk or memory that is full: what the trainer says and does."""

import errno
import os
import re
import subprocess

import pytest
import torch

from plateau.config import UserError
from plateau.training import checkpoint
from tests.training.test_checkpoint import DAMAGE
from tests.training.test_trainer import (
    Killed,
    assert_bit_equal,
    assert_same_run,
    dying_loss,
    final_model,
)
from tests.training.toy import make_loader, make_trainer, toy_loss


@pytest.mark.parametrize("call", [0, 1, 3, 8, None])
@pytest.mark.parametrize("damage", ["cut short", "empty", "garbage"])
def test_a_damaged_last_checkpoint_is_said_and_the_one_before_taken(
    cuts, undisturbed, tmp_path, capsys, call, damage
):
    """Of a run that was killed, and of one that ended (call is None)."""
    if call is None:
        make_trainer(cuts, tmp_path).run()
    else:
        with pytest.raises(Killed):
            make_trainer(cuts, tmp_path, loss_function=dying_loss(call)).run()
    last = tmp_path / "checkpoints" / "last.pt"
    if call in (0, 1):  # before the first checkpoint but the one of the beginning
        (tmp_path / "checkpoints" / "before-last.pt").write_bytes(last.read_bytes())
    DAMAGE[damage](last)
    capsys.readouterr()
    make_trainer(cuts, tmp_path).run()
    said = capsys.readouterr().out
    assert f"{last}: damaged (" in said and "and the one before it is taken" in said
    assert f"going on from {last.with_name('before-last.pt')}" in said
    assert last.with_name("damaged-last.pt").exists()
    assert_same_run(tmp_path, undisturbed)


def test_killed_between_two_renames_and_resumed(cuts, undisturbed, tmp_path):
    with pytest.raises(Killed):
        make_trainer(cuts, tmp_path, loss_function=dying_loss(8)).run()
    (tmp_path / "checkpoints" / "last.pt").unlink()
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


def follow(advice: str) -> None:
    """Run the shell command that a message names, between a colon and a semicolon."""
    (command,) = re.findall(r": (rm .*?);", advice)
    subprocess.run(command, shell=True, check=True)


def test_two_damaged_checkpoints_are_named_and_the_advice_helps(cuts, undisturbed, tmp_path):
    with pytest.raises(Killed):
        make_trainer(cuts, tmp_path, loss_function=dying_loss(8)).run()
    for name in ("last.pt", "before-last.pt"):
        DAMAGE["cut short"](tmp_path / "checkpoints" / name)
    with pytest.raises(UserError) as error:
        make_trainer(cuts, tmp_path).run()
    assert "/last.pt: damaged" in str(error.value) and "/before-last.pt" in str(error.value)
    follow(str(error.value))
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


def test_a_damaged_model_of_an_epoch_is_named_and_the_advice_helps(cuts, tmp_path, capsys):
    make_trainer(cuts, tmp_path).run()
    other = checkpoint.load(tmp_path / "checkpoints/epoch-2.pt")["model"]
    (tmp_path / "checkpoints/averaged.pt").unlink()
    DAMAGE["cut short"](tmp_path / "checkpoints/epoch-3.pt")
    with pytest.raises(UserError, match=r"epoch-3\.pt: damaged") as error:
        make_trainer(cuts, tmp_path).run()
    follow(str(error.value))
    capsys.readouterr()
    make_trainer(cuts, tmp_path).run()
    assert "averaged over 1 epochs; epoch-3.pt is not there" in capsys.readouterr().out
    assert_bit_equal(final_model(tmp_path), other)
    (tmp_path / "checkpoints/epoch-2.pt").unlink()
    with pytest.raises(UserError, match="so there is no model") as error:
        make_trainer(cuts, tmp_path).run()
    follow(str(error.value))
    make_trainer(cuts, tmp_path).run()
    assert final_model(tmp_path)


def test_no_room_for_a_checkpoint_is_a_line_and_the_run_goes_on_later(
    cuts, undisturbed, tmp_path, monkeypatch
):
    write, calls = torch.save, iter(range(10**6))

    def full(state, file):
        write(state, file)
        if next(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(UserError, match="MB free"):
        patched.setattr(torch, "save", full)
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
