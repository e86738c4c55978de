"""What is said of options and losses."""

import json
from dataclasses import replace

import pytest

from conformer_ctc.options import LossOptions, Options
from plateau.config import UserError, resolve
from plateau.models.prior import PriorOptions
from plateau.report.facts import duration, list_options, loss_remark, read_epochs
from transducer.options import LossOptions as TransducerLoss
from transducer.options import Options as TransducerOptions

MOVING = PriorOptions(estimator="moving_average", scale=0.05)


def test_options_that_are_listed_make_the_same_options():
    options = resolve(
        Options,
        {},
        ["features.perturb_speed=[0.9,1.1]", "loss.prior.scale=0.1", "data_dir=data/a b",
         "corpus={seed: 3}", "tokens.kind=char"],
    )  # fmt: skip
    listed = list_options(options)
    changed = {o.name: (o.value, o.default) for o in listed if o.value != o.default}
    assert changed == {
        "data_dir": ("data/a b", ""),
        "corpus.seed": ("3", ""),
        "features.perturb_speed": ("[0.9, 1.1]", "[]"),
        "tokens.kind": ("char", "bpe"),
        "loss.prior.scale": ("0.1", "0.3"),
    }
    overrides = [f"{name}={value}" for name, (value, _) in changed.items() if "corpus" not in name]
    assert resolve(Options, {"corpus": {"seed": 3}}, overrides) == options
    assert len(listed) == len({o.name for o in listed}) > 50


@pytest.mark.parametrize(
    ("loss", "causes"),
    [
        (LossOptions(), []),
        (LossOptions(viterbi=0.5), []),
        (LossOptions(prior=PriorOptions(scale=0.5)), []),  # no estimator: no prior
        (LossOptions(prior=replace(MOVING, scale=0.0)), []),
        (LossOptions(prior=MOVING), ["loss.prior"]),
        (LossOptions(prior=MOVING, after_steps=100), []),  # never came to it
        (LossOptions(prior=MOVING, after_steps=99), ["loss.prior"]),
        (LossOptions(acoustic_scale=0.5), ["loss.acoustic_scale"]),
        (LossOptions(acoustic_scale=2.0), []),
        (LossOptions(acoustic_scale=0.5, viterbi=1.0), []),
        (LossOptions(delay_penalty=0.1, prior=MOVING), ["loss.prior", "loss.delay_penalty"]),
        (TransducerLoss(), []),
        (TransducerLoss(delay_penalty=0.1), ["loss.delay_penalty"]),
        (TransducerLoss(delay_penalty=0.1, kind="viterbi", aligner="transducer"), []),
    ],
)
def test_a_loss_that_may_be_negative_is_explained(loss, causes):
    recipe = Options if isinstance(loss, LossOptions) else TransducerOptions
    remark = loss_remark(recipe(loss=loss), steps=100)
    assert [
        c for c in ("loss.prior", "loss.acoustic_scale", "loss.delay_penalty") if c in remark
    ] == causes
    assert bool(remark) == bool(causes)
    assert ("from step 99 on" in remark) == (bool(causes) and loss.after_steps == 99)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.49, "1.5 s"),
        (59.96, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (9030, "2 h 30 min"),
    ],
)
def testdurations(seconds, text):
    assert duration(seconds) == text


def test_nothing_trained_is_said(tmp_path):
    for content in (None, ""):
        if content is not None:
            (tmp_path / "log").mkdir()
            (tmp_path / "log/epochs.jsonl").write_text(content)
        with pytest.raises(UserError, match=r"no epoch is trained; run the same ./run.sh again"):
            read_epochs(tmp_path)
    record = {"epoch": 1, "step": 7, "train_seconds": 0.5}
    (tmp_path / "log/epochs.jsonl").write_text(json.dumps(record) + "\n")
    assert read_epochs(tmp_path) == [record]
