"""Stages 4 to 6 on a few sequences, by the scripts' main functions."""

import json
import math
from pathlib import Path

import pytest
import torch

import vrnn.check
import vrnn.decode
import vrnn.train
from plateau.config import UserError
from plateau.io import read_json
from plateau.training import checkpoint
from plateau.training.trainer import Trainer
from tests.vrnn.tiny import start

FINAL = Path("checkpoints/averaged.safetensors")
KINDS = pytest.mark.parametrize("kind", ["strokes", "images"])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")


@KINDS
def test_from_checks_to_figures(kind):
    exp_dir = start(kind)
    for stage in (vrnn.check, vrnn.train, vrnn.decode):
        stage.main(exp_dir)
    lines = (exp_dir / "log/epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    for name in ("dev", "test"):
        folder = exp_dir / f"decode_{name}_bound"
        figures = {r["metric"]: r["value"] for r in read_json(folder / "metrics.json")}
        assert all(math.isfinite(value) for value in figures.values())
        rows = [line.split("\t") for line in (folder / "sequences.tsv").read_text().splitlines()]
        bounds, steps = ([float(row[n]) for row in rows[1:]] for n in (3, 2))
        per_step = sum(bounds) / sum(steps)
        assert figures["bound_nats_per_step"] == pytest.approx(per_step, abs=1e-3)
        per_sequence = sum(bounds) / len(bounds)
        assert figures["bound_nats_per_sequence"] == pytest.approx(per_sequence, abs=1e-2)
        writers = (folder / "writers.tsv").read_text().splitlines()[1:]
        assert {line.split("\t")[0] for line in writers} == {f"{name}0", f"{name}1"}


def test_the_development_loss_is_minus_the_bound_over_all_steps():
    """Without latents nothing is drawn: what training says, decoding says of the same model."""
    exp_dir = start("strokes", "vrnn.kind=rnn", "training.epochs=1")
    vrnn.train.main(exp_dir)
    vrnn.decode.main(exp_dir)
    (line,) = (exp_dir / "log/epochs.jsonl").read_text().splitlines()
    records = read_json(exp_dir / "decode_dev_bound/metrics.json")
    (bound,) = (r["value"] for r in records if r["metric"] == "bound_nats_per_step")
    assert json.loads(line)["dev_loss"] == pytest.approx(-bound, abs=2e-4)
    assert json.loads(line)["dev_bound"] == pytest.approx(bound, abs=2e-4)


class Killed(Exception):
    """As a signal would."""


def train_killed(exp_dir, monkeypatch, after):
    """Train; killed after so many batches, it is started again."""
    done, learn = 0, Trainer._learn

    def killed(self, batch):
        nonlocal done
        if done == after:
            raise Killed
        done += 1
        learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_learn", killed)
        with pytest.raises(Killed):
            vrnn.train.main(exp_dir)
    vrnn.train.main(exp_dir)


def model_of(exp_dir):
    return checkpoint.load(exp_dir / FINAL, ["model"], "")["model"]


@KINDS
def test_a_run_that_was_killed_ends_bit_equal(kind, monkeypatch):
    """With latents that are drawn, and images that are binarised anew in each epoch."""
    exp_dir = start(kind, "training.checkpoint_every=2")
    vrnn.train.main(exp_dir)
    whole = model_of(exp_dir)
    exp_dir.joinpath("checkpoints").rename("whole")
    train_killed(exp_dir, monkeypatch, after=5)  # in the second epoch, not at a checkpoint
    found = model_of(exp_dir)
    assert found.keys() == whole.keys()
    different = [name for name in found if not torch.equal(found[name], whole[name])]
    assert not different
    # Another seed is seen to be another model.
    exp_dir.joinpath("checkpoints").rename("killed")
    vrnn.train.main(start(kind, "training.checkpoint_every=2", "training.seed=2"))
    assert any(not torch.equal(value, whole[n]) for n, value in model_of(exp_dir).items())


@pytest.mark.parametrize("term", ["log_prob", "kl"])
def test_a_loss_that_is_not_finite_names_the_term_and_the_sequences(term, monkeypatch):
    exp_dir, right = start("strokes", "training.max_skipped=0"), vrnn.train.SequenceModel.forward

    def broken(self, values, lengths, noise=None):
        terms = right(self, values, lengths, noise)
        (terms.log_prob if term == "log_prob" else terms.kl_per_dim).data[0, 0] = math.nan
        return terms

    monkeypatch.setattr(vrnn.train.SequenceModel, "forward", broken)
    with pytest.raises(
        UserError, match=rf"not finite \(bound, {term}: nan\) in 1 batches; their seq"
    ):
        vrnn.train.main(exp_dir)
    (line,) = (exp_dir / "log/nonfinite_batches.0.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["not_finite"] == ["bound", term]
    assert len(found["utterances"]) == 4
    assert all(id.startswith("train-") for id in found["utterances"])


def test_results_of_sets_that_are_gone_are_kept_aside():
    exp_dir = start("strokes", "training.epochs=1")
    vrnn.train.main(exp_dir)
    vrnn.decode.main(exp_dir)
    start("strokes", "training.epochs=1", 'test_sets=["test"]')
    vrnn.decode.main(exp_dir)
    assert (exp_dir / "before-1/decode_dev_bound/metrics.json").exists()
    assert not (exp_dir / "decode_dev_bound").exists()
