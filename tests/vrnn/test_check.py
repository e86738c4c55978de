import dataclasses
from pathlib import Path

import pytest
import torch

import vrnn.check
import vrnn.decode
from plateau.config import UserError
from plateau.models.distributions import Output
from tests.vrnn.tiny import start
from vrnn.check import main

READY = "checked 12 training sequences and vrnn: ready to train"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys):
    return capsys.readouterr().out.splitlines()


OF_STROKES = [
    (),
    ("vrnn.kind=vrnn_i", "vrnn.cell=gru", "vrnn.output.autoregressive=true"),
    ("vrnn.kind=rnn", "vrnn.output.kind=mixture"),
    ("model=vae", "vae.output.kind=gaussian"),
]


@pytest.mark.parametrize("overrides", OF_STROKES)
def test_drawings_are_ready(capsys, overrides):
    exp_dir = start("strokes", "training.schedule.warmup_steps=2", *overrides)
    capsys.readouterr()
    main(exp_dir)
    first, *notes, last = said(capsys)
    assert first.startswith("the longest training sequence is train-") and first.endswith("steps")
    assert notes == [] and last == READY


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_images_are_ready(capsys, kind):
    exp_dir = start("images", f"vae.kind={kind}", "loading.binarise=none")
    capsys.readouterr()
    main(exp_dir)
    _, *notes, last = said(capsys)
    assert last == READY
    assert len(notes) == 2 and "loading.binarise" in notes[0] and "warmup_steps" in notes[1]


def test_what_comes_after_the_end_is_told(capsys):
    main(start("strokes", "bound.kl_schedule=linear"))
    said_of = [line for line in said(capsys) if line.startswith("note: ")]
    assert "the training has 6 steps: the learning rate does not reach" in said_of[0]
    assert "bound.kl_steps is 10000, and the training has 6 steps: the factor of" in said_of[1]


def test_an_option_that_does_nothing_is_told(capsys):
    exp_dir = start("strokes", "vae.latent_dim=7", "training.schedule.warmup_steps=2")
    Path("vrnn/conf").mkdir(parents=True)
    Path("vrnn/conf/default.yaml").touch()
    main(exp_dir)
    (note,) = (line for line in said(capsys) if line.startswith("note: "))
    assert note.startswith("note: vae.latent_dim is 7 in place of 20, and that changes neither")
    assert "nor its loss on 4 sequences; is the part used that it is of?" in note


def test_planted_the_seed_s_mistake_is_an_error(monkeypatch):
    exp_dir, right = start("strokes"), Output.log_prob
    monkeypatch.setattr(Output, "log_prob", lambda self, h, x: right(self, h, x) - 181.95)
    with pytest.raises(UserError, match=r"a vrnn set by hand.*\nlook at log_prob"):
        main(exp_dir)
    monkeypatch.setattr(vrnn.check, "check_exact", lambda kind: None)
    with pytest.raises(UserError, match=r"vrnn\.output: the probabilities .* = -198\.0\d\d · ½ ln"):
        main(exp_dir)
    monkeypatch.setattr(vrnn.check, "check_integral", lambda options: None)
    with pytest.raises(UserError, match=r"by scipy .* = -198\.0\d\d · ½ ln"):
        main(exp_dir)


def test_planted_a_mean_over_sequences_in_the_evaluation_is_an_error(monkeypatch):
    exp_dir, right = start("strokes"), vrnn.decode.averages

    def of_sequences(bound, lengths, dim):
        mean = (bound / lengths).mean().item()
        return dataclasses.replace(right(bound, lengths, dim), per_step=mean)

    monkeypatch.setattr(vrnn.decode, "averages", of_sequences)
    with pytest.raises(UserError, match=r"the evaluation says .* nats a step of train-\d+, train-"):
        main(exp_dir)


def test_planted_an_evaluation_that_trains_is_an_error(monkeypatch):
    exp_dir, right = start("strokes"), vrnn.check.evaluate

    def trains(model, *arguments):
        with torch.no_grad():
            model.core.phi_x[0].bias[0] += 1e-6
        return right(model, *arguments)

    monkeypatch.setattr(vrnn.check, "evaluate", trains)
    with pytest.raises(UserError, match=r"the evaluation changes core\.phi_x\.0\.bias"):
        main(exp_dir)


def test_memory_that_runs_out_names_the_longest_sequence(monkeypatch):
    exp_dir, right = start("strokes"), vrnn.check.build

    def hungry(options):
        recipe = right(options)

        def loss_function(model, batch):
            if recipe.model.training:
                torch.empty(10**16)  # more than any machine can address
            return recipe.loss_function(model, batch)

        return dataclasses.replace(recipe, loss_function=loss_function)

    monkeypatch.setattr(vrnn.check, "build", hungry)
    with pytest.raises(UserError, match=r"out of memory .* the longest is train-\d+, 19 steps\nl"):
        main(exp_dir)


def test_a_model_that_does_not_fit_is_a_line(monkeypatch):
    exp_dir = start("strokes")
    monkeypatch.setattr(vrnn.check, "build", lambda options: torch.empty(10**16))
    with pytest.raises(UserError, match=r"the model does not fit .*: lower its sizes \(vrnn\.…"):
        main(exp_dir)
