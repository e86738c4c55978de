import dataclasses
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lhotse import CutSet

from plateau.config import UserError
from plateau.models.prior import LabelPrior, PriorOptions
from plateau.training import checkpoint
from plateau.training.distributed import Workers
from plateau.training.schedule import ScheduleOptions
from plateau.training.trainer import Trainer, TrainingOptions
from tests.training.toy import (
    CALM,
    OPTIONS,
    POISON,
    Toy,
    make_loader,
    make_trainer,
    poisoned_loss,
    toy_loss,
)

ROOT = Path(__file__).parents[2]
BATCHES = 11  # of three epochs of OPTIONS; the loss is computed once more an epoch to validate
SAVES = 10  # checkpoints that a run of OPTIONS writes


class Killed(Exception):
    pass


def dying_loss(call, die=None):
    """The toy's loss, which dies in the given call (from 0)."""
    calls = iter(range(10**6))

    def loss_function(model, batch):
        if next(calls) == call:
            if die is not None:
                die()
            raise Killed
        return toy_loss(model, batch)

    return loss_function


def final_model(exp_dir: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(exp_dir / "checkpoints" / "averaged.safetensors")["model"]


def history(exp_dir: Path) -> list[dict[str, float]]:
    lines = (exp_dir / "log" / "epochs.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in record.items() if k != "train_seconds"} for record in records]


def assert_bit_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_same_run(exp_dir: Path, undisturbed: Path) -> None:
    assert_bit_equal(final_model(exp_dir), final_model(undisturbed))
    assert history(exp_dir) == history(undisturbed)


def plain_loop(cuts: CutSet, options: TrainingOptions, loss_function, world_size: int) -> Toy:
    """What the trainer is to do, without dropout and SpecAugment, written down once more."""
    checkpoint.set_seed(options.seed)
    model = Toy(dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), betas=options.betas, weight_decay=0.01)
    loaders = [
        make_loader(cuts[:-2], Workers(rank, world_size, torch.device("cpu")), shuffle=True)
        for rank in range(world_size)
    ]
    hours, step = loaders[0].total_size, 0
    for epoch in range(options.epochs):
        heard = 0.0
        for batches in zip(*(loader.batches(epoch) for loader in loaders), strict=True):
            losses = [loss_function(model, batch) for batch in batches]
            progress = (epoch + heard / hours) / options.epochs
            heard += sum(batch.seconds for batch in batches)
            total = sum(loss.total for loss in losses)
            if not total.isfinite():
                continue
            step += 1
            optimizer.param_groups[0]["lr"] = (
                options.schedule.peak
                * min(1, step / options.schedule.warmup_steps)
                * (1 + math.cos(math.pi * min(progress, 1)))
                / 2
            )
            optimizer.zero_grad()
            (total / sum(loss.tokens for loss in losses)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_grad_norm)
            optimizer.step()
    return model


def assert_close(model: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name in model:
        if name != "calls":
            torch.testing.assert_close(model[name], other[name], rtol=1e-4, atol=1e-6)


def test_a_run_leaves_checkpoints_history_and_tensorboard(undisturbed):
    files = list((undisturbed / "checkpoints").iterdir())
    assert {path.suffix for path in files} == {".safetensors"}
    names = {path.stem for path in files}
    assert names == {"epoch-2", "epoch-3", "last", "before-last", "averaged"}
    epochs = history(undisturbed)
    assert [record["epoch"] for record in epochs] == [1, 2, 3]
    assert epochs[-1]["step"] == BATCHES
    assert set(epochs[0]) == {"epoch", "step"} | {
        f"{part}_{figure}" for part in ("train", "dev") for figure in ("loss", "blank")
    }
    last = checkpoint.load(undisturbed / "checkpoints" / "last.safetensors")
    assert last["options"]["training"]["seed"] == OPTIONS.seed
    assert torch.__version__.startswith(last["environment"]["torch"])
    assert any((undisturbed / "tensorboard").iterdir())
    models = [
        checkpoint.load(undisturbed / "checkpoints" / f"epoch-{i}.safetensors") for i in (2, 3)
    ]
    weights = torch.stack([model["model"]["layers.0.weight"].double() for model in models])
    torch.testing.assert_close(
        final_model(undisturbed)["layers.0.weight"], weights.mean(0).float(), rtol=0, atol=1e-7
    )


def test_a_run_does_what_a_plain_loop_does(cuts, tmp_path):
    trainer = make_trainer(cuts, tmp_path, CALM, dropout=0.0)
    trainer.run()
    model = plain_loop(cuts, CALM, toy_loss, world_size=1)
    assert_close(trainer.model.state_dict(), model.state_dict())
    model.eval()
    losses = [toy_loss(model, batch) for batch in make_loader(cuts[-2:]).batches()]
    dev_loss = sum(loss.total.item() for loss in losses) / sum(loss.tokens for loss in losses)
    assert history(tmp_path)[-1]["dev_loss"] == pytest.approx(dev_loss, abs=1e-3)


def test_augmentation_and_dropout_matter(cuts, undisturbed, tmp_path):
    """Otherwise the tests of resuming would not see their random numbers."""
    make_trainer(cuts, tmp_path / "calm", CALM).run()
    make_trainer(cuts, tmp_path / "no dropout", dropout=0.0).run()
    models = [final_model(d) for d in (undisturbed, tmp_path / "calm", tmp_path / "no dropout")]
    weights = [model["layers.0.weight"] for model in models]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("call", range(BATCHES + OPTIONS.epochs))
def test_killed_at_any_batch_and_resumed(cuts, undisturbed, tmp_path, call):
    with pytest.raises(Killed):
        make_trainer(cuts, tmp_path, loss_function=dying_loss(call)).run()
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("number", range(SAVES))
def test_killed_beside_any_checkpoint_and_resumed(
    cuts, undisturbed, tmp_path, monkeypatch, number, before
):
    """Between an epoch's checkpoint and last.safetensors, for instance."""
    save, saves = checkpoint.save, iter(range(10**6))

    def dying_save(state, path, keep=False):
        dies = next(saves) == number
        if dies and before:
            raise Killed
        save(state, path, keep)
        if dies:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoint, "save", dying_save)
        make_trainer(cuts, tmp_path).run()
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


def test_killed_again_and_again_and_resumed(cuts, undisturbed, tmp_path):
    deaths = 0
    while not (tmp_path / "checkpoints" / "averaged.safetensors").exists():
        try:
            # Each start gets one batch further than its first checkpoint.
            make_trainer(cuts, tmp_path, loss_function=dying_loss(3)).run()
        except Killed:
            deaths += 1
        assert deaths < BATCHES
    assert deaths > 3
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("call", [1, 6])
def test_killed_while_a_worker_loads_ahead(cuts, undisturbed, tmp_path, call):
    with pytest.raises(Killed):
        make_trainer(cuts, tmp_path, loss_function=dying_loss(call), num_workers=1).run()
    make_trainer(cuts, tmp_path, num_workers=1).run()
    assert_same_run(tmp_path, undisturbed)


def test_kill_9_and_resumed(cuts, undisturbed, tmp_path):
    def train():
        die = dying_loss(8, die=lambda: os.kill(os.getpid(), signal.SIGKILL))
        make_trainer(cuts, tmp_path, loss_function=die, num_workers=1).run()

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "checkpoints" / "averaged.safetensors").exists()
    make_trainer(cuts, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


def test_a_finished_run_started_again_changes_nothing(cuts, undisturbed, tmp_path):
    make_trainer(cuts, tmp_path).run()
    make_trainer(cuts, tmp_path, loss_function=dying_loss(0)).run()
    assert_same_run(tmp_path, undisturbed)


def nonfinite(exp_dir: Path) -> list[dict]:
    lines = (exp_dir / "log" / "nonfinite_batches.0.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def poisoned_gradient(model, batch):
    """The loss is finite, its gradient is not: that of a square root at 0 times 0."""
    loss = toy_loss(model, batch)
    if POISON in batch.ids:
        zero = (0 * next(model.parameters())).sum().sqrt()
        return dataclasses.replace(loss, total=loss.total + zero)
    return loss


@pytest.mark.parametrize("loss_function", [poisoned_loss, poisoned_gradient])
def test_batches_that_are_not_finite_are_left_out_and_named(cuts, tmp_path, loss_function):
    options = dataclasses.replace(CALM, max_skipped=3)
    trainer = make_trainer(cuts, tmp_path, options, loss_function)
    trainer.run()
    assert trainer.progress.skipped == 3  # one an epoch
    assert trainer.progress.step == BATCHES - 3
    records = nonfinite(tmp_path)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert all(record["loss"] == "nan" for record in records)
    part = ["gradient"] if loss_function is poisoned_gradient else []
    assert all(record["not_finite"] == part for record in records)
    for epoch, record in enumerate(records):
        batches = [batch.ids for batch in make_loader(cuts[:-2], shuffle=True).batches(epoch)]
        assert POISON in record["utterances"]
        assert batches[record["batch"] - 1] == record["utterances"]
    assert all(value.isfinite().all() for value in final_model(tmp_path).values())
    assert all(math.isfinite(record["train_loss"]) for record in history(tmp_path))


@pytest.mark.parametrize("loss_function", [poisoned_loss, poisoned_gradient])
def test_too_many_batches_that_are_not_finite_stop_the_training(cuts, tmp_path, loss_function):
    options = dataclasses.replace(CALM, max_skipped=1)
    with pytest.raises(UserError, match=r"not finite \(\w+: nan\) in 2 batches") as error:
        make_trainer(cuts, tmp_path, options, loss_function).run()
    assert str(tmp_path / "log" / "nonfinite_batches.0.jsonl") in str(error.value)
    assert len(nonfinite(tmp_path)) == 2
    last = checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")
    assert all(value.isfinite().all() for value in last["model"].values())
    assert not (tmp_path / "checkpoints" / "averaged.safetensors").exists()
    # As the message says, one goes on with a higher limit.
    make_trainer(cuts, tmp_path, dataclasses.replace(CALM, max_skipped=9), loss_function).run()
    assert all(value.isfinite().all() for value in final_model(tmp_path).values())


def test_the_toy_is_learnt(cuts, tmp_path):
    options = dataclasses.replace(
        CALM, epochs=40, schedule=ScheduleOptions(peak=3e-2, warmup_steps=10)
    )
    trainer = make_trainer(cuts, tmp_path, options, dropout=0.0)
    trainer.run()
    # Who knows how many letters there are but not which pays log 3 nats for each.
    assert history(tmp_path)[-1]["train_loss"] < 0.5 * math.log(3)
    assert history(tmp_path)[-1]["dev_loss"] < 0.1 * math.log(3)


def gradients(trainer: Trainer) -> list[torch.Tensor]:
    """Run the trainer; the gradients of all parameters at each update."""
    seen = []
    update = trainer.optimizer.step

    def step():
        seen.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
        return update()

    trainer.optimizer.step = step
    trainer.run()
    return seen


def test_long_gradients_are_shortened_and_short_ones_are_not(cuts, tmp_path):
    options = dataclasses.replace(CALM, epochs=1)
    free = dataclasses.replace(options, clip_grad_norm=1e9)
    tight = dataclasses.replace(options, clip_grad_norm=1e-3)
    free = gradients(make_trainer(cuts, tmp_path / "free", free, dropout=0.0))
    tight = gradients(make_trainer(cuts, tmp_path / "tight", tight, dropout=0.0))
    assert all(gradient.norm() > 1e-2 for gradient in free)
    assert all(math.isclose(gradient.norm(), 1e-3, rel_tol=1e-3) for gradient in tight)
    # The first is of the same parameters.
    torch.testing.assert_close(tight[0] / tight[0].norm(), free[0] / free[0].norm())


def test_half_precision_on_the_cpu_is_fp32(cuts, tmp_path):
    for precision in ("fp32", "bf16", "fp16"):
        options = dataclasses.replace(OPTIONS, epochs=1, precision=precision)
        make_trainer(cuts, tmp_path / precision, options).run()
    model = final_model(tmp_path / "fp32")
    assert model["layers.0.weight"].dtype == torch.float32
    assert_bit_equal(final_model(tmp_path / "bf16"), model)
    assert_bit_equal(final_model(tmp_path / "fp16"), model)


@pytest.mark.slow
def test_two_processes_train_one_model(cuts, tmp_path):
    """With a batch in each epoch that is not finite for one of them."""
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    command = [sys.executable, ROOT / "utils" / "torchrun.py", "--standalone"]
    command += ["--nproc_per_node", "2", Path(__file__).with_name("toy.py")]
    process = subprocess.Popen(
        [*command, tmp_path / "cuts.jsonl.gz", tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
    )
    try:
        assert process.wait(timeout=300) == 0
    finally:
        if process.poll() is None:  # hangs: with it end the processes that it started
            os.killpg(process.pid, signal.SIGKILL)
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    assert_bit_equal(*ranks)
    model = plain_loop(cuts, CALM, poisoned_loss, world_size=2)
    assert_close(ranks[0], model.state_dict())
    records = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((tmp_path / "log").glob("nonfinite_batches.*.jsonl"))
    ]
    assert len(records) == 2
    for pair in zip(*records, strict=True):
        assert sum(POISON in record["utterances"] for record in pair) == 1
    # About the loss of one process, which takes twice as many steps with half as many utterances.
    make_trainer(cuts, tmp_path / "one", CALM, poisoned_loss, dropout=0.0).run()
    two, one = (history(d)[-1]["dev_loss"] for d in (tmp_path, tmp_path / "one"))
    assert two == pytest.approx(one, rel=0.5)


def with_prior(cuts: CutSet, exp_dir: Path, killed_at: int = -1) -> Trainer:
    """A trainer whose model has a label prior of the epoch before."""
    calls = iter(range(10**6))

    def loss_function(model, batch):
        if next(calls) == killed_at:
            raise Killed
        log_probs = model(batch.features, batch.lengths)
        if model.training:
            model.prior.update(log_probs.exp(), batch.lengths)
        loss = toy_loss(model, batch)
        blank = model.prior.log_prior[0].float()  # so that training depends on the prior
        return dataclasses.replace(loss, total=loss.total - (blank * log_probs[..., 0]).sum())

    trainer = make_trainer(cuts, exp_dir, loss_function=loss_function)
    trainer.model.prior = LabelPrior(4, PriorOptions("epoch"))
    return trainer


@pytest.mark.parametrize("killed_at", [2, 7])
def test_a_label_prior_turns_over_with_the_epoch_and_goes_on_after_a_kill(
    cuts, tmp_path, killed_at
):
    with_prior(cuts, tmp_path / "undisturbed").run()
    priors = [
        checkpoint.load(tmp_path / f"undisturbed/checkpoints/epoch-{n}.safetensors")["model"]
        for n in (2, 3)
    ]
    assert not priors[0]["prior.prior"].equal(priors[1]["prior.prior"])
    assert all(state["prior.sums"].eq(0).all() for state in priors)
    with pytest.raises(Killed):
        with_prior(cuts, tmp_path / "killed", killed_at).run()
    with_prior(cuts, tmp_path / "killed").run()
    assert_same_run(tmp_path / "killed", tmp_path / "undisturbed")
