"""An experiment's own model, tokens, loss and decoding learn to repeat what they are told."""

from pathlib import Path

import pytest

pytest.importorskip("k2")

import conformer_ctc.train
import transducer.train
from conformer_ctc.options import LossOptions
from plateau import config
from plateau.config import UserError
from plateau.training.experiment import options_class
from tests.local.test_check import TRAIN, Job

SIZES = ["encoder.conformer.dim=32", "encoder.conformer.feedforward_dim=32"]
RECIPES = {
    "conformer_ctc": [],
    "transducer": [
        *["predictor.dim=32", "joiner.dim=64", "loss.topology=rna", "loss.after_steps=20"],
        *["loss.ctc_layers=[1]", "loss.ctc_scales=[1]", "loss.warm_up_steps=9"],
    ],
}


@pytest.fixture
def job(tmp_path, monkeypatch, load_script):
    monkeypatch.chdir(tmp_path)
    job = Job(load_script)
    job.write("train", TRAIN)
    job.write("test", {"spk-t0": "b a c"})
    return job


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_learns_it(job, load_script, capsys, recipe):
    job.prepare(*SIZES, *RECIPES[recipe], recipe=recipe)
    before = sorted(Path().rglob("*"))
    load_script("sanity").main(job.exp_dir)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"exp/toy/{recipe}/x: learnt to repeat 3 words in ")
    assert sorted(Path().rglob("*")) == before


def test_a_schedule_is_over_in_time(load_script):
    loss = LossOptions(after_steps=1000, warm_up_steps=30)
    assert load_script("sanity").sooner(loss, 200) == LossOptions(after_steps=50, warm_up_steps=30)


def cut(model):
    """The first layers give what has no gradient."""
    model.encoder.subsampling.register_forward_hook(
        lambda module, given, output: (output[0].detach(), output[1])
    )
    return model


def flat(model):
    """An output layer that cannot learn, whatever is heard."""
    model.output.register_forward_hook(lambda module, given, output: 1e-3 * output)
    return model


@pytest.mark.parametrize(
    ("recipe", "module", "mistake", "message"),
    [
        ("conformer_ctc", conformer_ctc.train, cut, "no gradient, .* of encoder.subsampling; look"),
        ("transducer", transducer.train, cut, "no gradient, .* of encoder.subsampling; look"),
        ("conformer_ctc", conformer_ctc.train, flat, "after 100 steps 100.0% is its WER, of token"),
    ],
)
def test_planted_mistakes_are_told(job, load_script, monkeypatch, recipe, module, mistake, message):
    job.prepare(*SIZES, *RECIPES[recipe], recipe=recipe)
    build = module.build_model
    monkeypatch.setattr(module, "build_model", lambda options: mistake(build(options)))
    with pytest.raises(UserError, match=message) as error:
        load_script("sanity").main(job.exp_dir, steps=100)
    assert str(error.value).count("\n") < 3


def test_other_recipes_and_texts_without_words_are_refused(job, load_script):
    for recipe in ("vrnn", "masked_window"):
        exp_dir = Path("exp/toy", recipe, "x")
        options = config.resolve(options_class(recipe), {"data_dir": "data/toy"})
        config.save(options, exp_dir / "config.yaml")
        with pytest.raises(UserError, match=f"{exp_dir}: {recipe} has no search for tokens, whose"):
            load_script("sanity").main(exp_dir)
    job.prepare()
    sanity = load_script("sanity")
    tokenizer = sanity.read_lang(Path("data/toy/lang_word"))
    assert sanity.words_of(["a b", "c a x"], tokenizer) == ["a", "b", "c"]
    with pytest.raises(UserError, match="train: it has no word that all tokens of are known"):
        sanity.words_of(["x y"], tokenizer)
