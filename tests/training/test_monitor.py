"""What no gradient reaches is named, and an epoch that ends where a deaf model is."""

import dataclasses
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from plateau.training.monitor import Baseline, Monitor, nothing_but_blank, part_of
from tests.training.test_trainer import Killed, dying_loss
from tests.training.toy import CALM, make_trainer, toy_loss


def watched(cuts, exp_dir, change=lambda model: None, loss_function=toy_loss, **keywords):
    """A trainer of the toy, changed, with a monitor of it."""
    trainer = make_trainer(cuts, exp_dir, CALM, loss_function, dropout=0.0)
    change(trainer.model)
    trainer.optimizer = torch.optim.AdamW(trainer.model.parameters())
    trainer.monitor = Monitor(trainer.model, **keywords)
    return trainer


def notes(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]


def cut_off(model):
    """What the first layer gives comes without its gradient."""
    model.layers[0].register_forward_hook(lambda module, inputs, output: output.detach())


def add_unused(model):
    model.unused = nn.ModuleDict({"more": nn.Linear(2, 2)})


def test_a_model_whose_parts_all_learn_gets_no_note(cuts, tmp_path, capsys):
    watched(cuts, tmp_path).run()
    assert notes(capsys) == []


@pytest.mark.parametrize(
    ("change", "part", "parameter"),
    [(cut_off, "layers.0", "layers.0.weight"), (add_unused, "unused.more", "unused.more.weight")],
)
def test_what_no_gradient_reaches_is_named_once(cuts, tmp_path, capsys, change, part, parameter):
    watched(cuts, tmp_path, change).run()
    (note,) = notes(capsys)
    assert note.startswith(
        f"note: 2 parameters had no gradient, or only zeros, in any step: of {part}; "
    )
    assert note.endswith(f"e.g. {parameter}")


def test_what_a_loss_does_not_use_is_not_named(cuts, tmp_path, capsys):
    watched(cuts, tmp_path, add_unused, idle=("unused.",)).run()
    assert notes(capsys) == []


def late_loss(from_step):
    """The toy's loss, which has the first layer alone without gradient at first."""
    steps = iter(range(10**6))

    def loss_function(model, batch):
        if not model.training:
            return toy_loss(model, batch)
        loss = toy_loss(model, batch)
        if next(steps) >= from_step:
            return loss
        zero = 0.0 * sum(parameter.sum() for parameter in model.parameters())
        last = model.layers[3].weight.square().sum()
        return dataclasses.replace(loss, total=zero + last)

    return loss_function


def test_what_is_used_later_is_looked_at_later(cuts, tmp_path, capsys):
    """An epoch has four steps: the second is the first in which all of the loss counts."""
    watched(cuts, tmp_path / "said", loss_function=late_loss(4), all_from=4).run()
    assert notes(capsys) == []
    watched(cuts, tmp_path / "early", loss_function=late_loss(4)).run()
    (note,) = notes(capsys)
    assert "3 parameters had no gradient, or only zeros, in any step: of layers.0, layers.3" in note


def test_half_an_epoch_tells_nothing(cuts, tmp_path, capsys):
    """Resumed in the first epoch, it is the second that is looked at: whole."""
    with pytest.raises(Killed):
        watched(cuts, tmp_path, add_unused, dying_loss(3)).run()
    capsys.readouterr()
    trainer = watched(cuts, tmp_path, add_unused)
    told = []
    finish = trainer.monitor.finish_epoch

    def spy(record):
        told.append((record["epoch"], finish(record)))
        return told[-1][1]

    trainer.monitor.finish_epoch = spy
    trainer.run()
    assert [(epoch, len(said)) for epoch, said in told] == [(1, 0), (2, 1), (3, 0)]


def test_norms_are_those_of_the_gradients_before_clipping(cuts, tmp_path):
    trainer = watched(cuts, tmp_path, add_unused)
    seen = {}
    see = trainer.monitor.see_gradients

    def spy(step, tensorboard):
        gradients = {
            n: p.grad.clone() for n, p in trainer.model.named_parameters() if "un" not in n
        }
        seen[step] = gradients
        see(step, tensorboard)

    trainer.monitor.see_gradients = spy
    trainer.run()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("gradients/")}
    assert tags == {"gradients/layers.0", "gradients/layers.3"}
    for tag in tags:
        (found,) = events.Scalars(tag)
        assert found.step == 10
        part = tag.removeprefix("gradients/")
        squares = sum(
            float(g.double().square().sum()) for n, g in seen[10].items() if n.startswith(part)
        )
        assert found.value == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_parts():
    names = {
        "encoder.blocks.11.attention.output.weight": "encoder.blocks.11",
        "encoder.subsampling.convolutions.0.bias": "encoder.subsampling",
        "joiner.output.weight": "joiner.output",
        "layers.0.weight": "layers.0",
        "output.bias": "output",
        "scale": "scale",
    }
    assert {name: part_of(name) for name in names} == names


DEAF = Baseline("loss", 2.87, "the unigram entropy of the tokens", "nothing is heard; try more")


@pytest.mark.parametrize(
    ("loss", "at"), [(2.87, True), (2.8985, True), (2.8416, True), (2.9, False), (2.84, False)]
)
def test_an_epoch_at_a_baseline(loss, at):
    monitor = Monitor(nn.Linear(1, 1), [DEAF])
    monitor.start_epoch(0, whole=False)
    expected = [
        f"train_loss is {loss:.4g}, at the unigram entropy of the tokens (2.87): nothing is "
    ]
    said = monitor.finish_epoch({"train_loss": loss, "dev_loss": 2.87})
    assert said == ([expected[0] + "heard; try more"] if at else [])
    assert monitor.finish_epoch({"train_other": 2.87}) == []


def test_what_stays_is_told_once_and_then_in_short():
    monitor = Monitor(nn.Linear(1, 1), [dataclasses.replace(DEAF, patience=2)])
    losses = 2.87, 2.86, 2.87, 2.1, 2.87, 2.87
    said = [monitor.finish_epoch({"train_loss": loss}) for loss in losses]
    at = "at the unigram entropy of the tokens (2.87)"
    full = f"train_loss is {{}}, {at}: nothing is heard; try more"
    assert said == [
        [],
        [full.format("2.86")],
        [f"train_loss is still {at}, for 3 epochs"],
        [],
        [],
        [full.format("2.87")],
    ]


def test_nothing_but_blank(cuts, tmp_path, capsys):
    baseline = nothing_but_blank("blank")
    assert baseline.holds(0.9995) and not baseline.holds(0.9985) and not baseline.holds(None)

    def only_blank(model):  # and far too sure of it for three epochs, which are all
        nn.init.zeros_(model.layers[3].weight)
        model.layers[3].bias.data = torch.tensor([9.0, 0, 0, 0])

    watched(cuts, tmp_path / "deaf", only_blank, baselines=[baseline]).run()
    (note,) = notes(capsys)
    assert note.startswith(
        "note: train_blank is 1, at nothing but blank (1): no token is heard; try"
    )
    watched(cuts, tmp_path / "hears", baselines=[baseline]).run()
    assert notes(capsys) == []
