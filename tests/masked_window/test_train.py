"""Training and evaluation of windows, on words that are tones."""

import json
import math
import random
import re
from pathlib import Path

import pytest
import torch

from masked_window import check, decode, report, train
from masked_window.decode import shares_right
from masked_window.options import Options
from masked_window.train import build, hide, wanted
from plateau import config
from plateau.alignment.windows import windows_of
from plateau.config import UserError
from plateau.data.corpus import Corpus
from plateau.data.windows import PADDING
from plateau.training import checkpoint
from plateau.training.trainer import Trainer
from tests.job import run, trn
from tests.spoken import WORDS, write_set

EXP_DIR = Path("exp/toy/masked_window/window")
SETS = {"train": 60, "dev": 6, "test": 8}
MASK = 9


def texts(set_name: str) -> list[str]:
    """One to five words of four, of which `la` is in every second place."""
    generator = random.Random(set_name)
    names = [*WORDS, "la", "la"]
    return [
        " ".join(generator.choice(names) for _ in range(generator.randint(1, 5)))
        for _ in range(SETS[set_name])
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with a prepared corpus, data/toy."""
    folder = tmp_path_factory.mktemp("job")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setenv("TQDM_DISABLE", "1")
    for set_name in SETS:
        write_set(Path("data/toy", set_name), texts(set_name))
    save(make())
    config_file = str(EXP_DIR / "config.yaml")
    run("local/make_manifests.py", "data/toy")
    run("local/compute_fbank.py", "data/toy", config_file, "--nj", "1")
    run("local/make_tokens.py", "data/toy", config_file)
    yield folder
    patch.undo()


def make(**changes) -> Options:
    """Options of a small model; ``a__b=c`` stands for the field b of section a."""
    values = {
        "data_dir": "data/toy",
        "features": {"sampling_rate": 8000, "num_mel_bins": 20, "backend": "lhotse"},
        "tokens": {"kind": "word"},
        "loading": {"num_workers": 0},
        "window": {"frames": 30, "words": 3, "frame_stride": 3, "batch_size": 8},
        "window_model": {
            "dim": 32,
            "audio_layers": 1,
            "num_blocks": 1,
            "feedforward_dim": 32,
            "dropout": 0.0,
        },
        "masking": {"full": 0.5},
        "training": {
            "epochs": 20,
            "average_last": 2,
            "checkpoint_every": 3,
            "spec_augment": {"p": 0.0},
            "schedule": {"peak": 0.01, "warmup_steps": 10},
        },
    }
    for name, value in changes.items():
        section, _, field = name.partition("__")
        values[section] = {**values.get(section, {}), field: value}
    return config.resolve(Options, values)


def save(options: Options) -> Path:
    config.save(options, EXP_DIR / "config.yaml")
    return EXP_DIR


@pytest.fixture(scope="module")
def trained(corpus):
    """The figures of an experiment that is trained."""
    check.main(save(make()))
    train.main(EXP_DIR)
    decode.main(EXP_DIR)
    folder = corpus / "trained"
    EXP_DIR.rename(folder)
    return folder


def figures_of(folder: Path, set_name: str) -> dict[str, float]:
    records = json.loads((folder / f"decode_{set_name}_window/metrics.json").read_text())
    return {record["metric"]: record["value"] for record in records}


@pytest.mark.slow
def test_words_are_heard_from_the_audio_alone(trained):
    for set_name in ("dev", "test"):
        found = figures_of(trained, set_name)
        assert found["masked_words_right"] > 95
        assert found["masked_words_right"] > found["masked_words_right_unigram"] + 30
        assert found["wer"] == pytest.approx(100 - found["masked_words_right"])
    lines = (trained / "log/epochs.jsonl").read_text().splitlines()
    dev = [json.loads(line) for line in lines]
    assert dev[-1]["dev_cross_entropy"] < 0.2 and dev[-1]["dev_right"] > 0.95


@pytest.mark.slow
def test_the_files_have_each_word_once(trained):
    references, hypotheses = (
        trn(trained / f"decode_test_window/{name}.trn") for name in ("ref", "hyp")
    )
    words: dict[str, list[str]] = {}
    for id, own in references.items():
        words.setdefault(id.partition(":")[0], []).extend(own)
        assert len(own) <= 3
    assert [" ".join(words[id]) for id in sorted(words)] == texts("test")
    assert references.keys() == hypotheses.keys()
    found = figures_of(trained, "test")
    pairs = [
        (r, h) for id in references for r, h in zip(references[id], hypotheses[id], strict=True)
    ]
    share = 100 * sum(r == h for r, h in pairs) / len(pairs)
    assert found["masked_words_right"] == pytest.approx(share)
    commonest = 100 * sum(r == "la" for r, _ in pairs) / len(pairs)
    assert found["masked_words_right_unigram"] == pytest.approx(commonest)
    firsts = [(references[id][0], hypotheses[id][0]) for id in references]
    first = 100 * sum(r == h for r, h in firsts) / len(firsts)
    assert found["masked_words_right_place_1"] == pytest.approx(first)


def test_training_masks_what_evaluation_masks_and_nothing_is_left_over(corpus, monkeypatch):
    """The model of the evaluation is given just what that of the development loss is given."""
    seen = []
    forward = train.WindowModel.forward

    def watched(self, features, lengths, words):
        seen.append((self.training, words.clone(), features.clone()))
        return forward(self, features, lengths, words)

    monkeypatch.setattr(train.WindowModel, "forward", watched)
    options = make(training__epochs=1)
    train.main(save(options))
    validated = [(w, f) for training, w, f in seen if not training][:-1]  # the last is `watch`
    seen.clear()
    decode.main(EXP_DIR)
    evaluated = [(w, f) for _, w, f in seen][: len(validated)]
    assert len(validated) == len(evaluated) > 0
    for one, other in zip(validated, evaluated, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    mask_id = build(options).model.mask_id
    assert all(set(words.unique().tolist()) <= {PADDING, mask_id} for words, _ in evaluated)


def test_what_is_masked():
    random.seed(0)
    words = torch.tensor([[3, 4, 5, 6], [3, 4, PADDING, PADDING]])
    everything = hide(words, MASK, make(), None)
    assert everything.tolist() == [[9, 9, 9, 9], [9, 9, 0, 0]]
    options = make(masking__full=0.0, masking__schedule="fixed", masking__share=0.5)
    draws = {tuple(hide(words, MASK, options, 0).flatten().tolist()) for _ in range(200)}
    assert all([*d[:4]].count(9) == 2 and [*d[4:6]].count(9) == 1 for d in draws)
    assert len({d[:4] for d in draws}) == 6 and len({d[4:] for d in draws}) == 2
    assert all(x in (9, y) for d in draws for x, y in zip(d, words.flatten().tolist(), strict=True))
    falling = make(masking__full=0.0, masking__schedule="decreasing", masking__steps=100)
    assert (hide(words, MASK, falling, 0)[0] == 9).sum() == 4
    assert (hide(words, MASK, falling, 100)[0] == 9).sum() == 2


def test_padding_that_is_a_word_is_never_given():
    words = torch.tensor([[3, 4, 5, 6], [3, 4, PADDING, PADDING]])
    options = make(window__padding="token", masking__full=0.0, masking__schedule="fixed")
    for step in (0, None):
        given = hide(words, MASK, options, step)
        assert given[1, 2:].tolist() == [9, 9]
        assert wanted(words, given, MASK, "all")[1, 2:].all()
    given = hide(words, MASK, make(), None)
    assert not wanted(words, given, MASK, "all")[1, 2:].any()


@pytest.mark.parametrize("words", [[[3, 4, 0], [5, 0, 0]], [[0, 3, 4], [0, 0, 5]]])
def test_the_last_word_alone(words):
    words = torch.tensor(words)
    options = make(window_model__predict="last", masking__full=0.0, masking__schedule="fixed")
    found = set()
    for _ in range(50):
        given = hide(words, MASK, options, 0)
        places = wanted(words, given, MASK, "last")
        assert words[places].tolist() == [4, 5] and (given[places] == MASK).all()
        found.add(tuple(given.flatten().tolist()))
    assert len(found) == 2  # the first of two words is masked as well, or not


def test_shares_by_hand():
    words = torch.tensor([[3, 4, 5], [3, 3, 0]])
    found = torch.tensor([[3, 5, 5], [3, 4, 4]])
    places = torch.ones(2, 3).bool()
    expected = {
        "masked_words_right": 60,
        "masked_words_right_with_padding": 50,
        "masked_words_right_unigram": 60,
        "masked_words_right_place_1": 100,
        "masked_words_right_place_2": 0,
        "masked_words_right_place_3": 100,
    }
    assert shares_right(words, found, places, 3) == pytest.approx(expected)
    del expected["masked_words_right_with_padding"]
    assert shares_right(words, found, words != 0, 3) == pytest.approx(expected)


CHANGES = {
    "token": {"window__padding": "token"},
    "token_left": {"window__padding": "token", "window__side": "left"},
    "left": {"window__side": "left"},
    "last": {"window_model__predict": "last"},
    "weights": {"window_loss__weight_power": 0.5, "window_loss__logit_adjustment": 0.5},
    "plain": {"window_loss__attention": 0.0, "window_loss__frames": 0.0},
    "sinusoidal": {"window_model__positions": "sinusoidal"},
    "relative": {"window_model__positions": "relative", "window__frame_join": "skip"},
    "own": {"window_model__spelling": False},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_each_option_trains_and_is_another_model(corpus, changes):
    """A change that changes nothing would be the seed's experiment on an unused class."""
    gradients = []
    for options in (make(), make(**changes)):
        torch.manual_seed(0)
        random.seed(0)
        recipe = build(options)
        loader = train.WindowLoader(
            windows_of(Corpus(Path("data/toy")), "train", options.window),
            options.features,
            train.read_lang(Path("data/toy/lang_word")),
        )
        batch = loader.some(range(12))
        loss = recipe.loss_function(recipe.model.train(), batch)
        assert math.isfinite(loss.total.item()) and loss.tokens > 0
        loss.total.backward()
        gradients.append((loss.total.item(), loss.tokens))
        used = [p.grad is not None for p in recipe.model.parameters()]
        assert all(used)
    assert gradients[0] != gradients[1]


@pytest.mark.slow
def test_padding_that_is_said_is_scored(corpus):
    options = make(window__padding="token", training__epochs=20)
    train.main(save(options))
    decode.main(EXP_DIR)
    found = figures_of(EXP_DIR, "test")
    assert found["masked_words_right"] > 60
    assert found["masked_words_right_with_padding"] > 60
    # Words too many or too few are errors, too.
    references = trn(EXP_DIR / "decode_test_window/ref.trn")
    hypotheses = trn(EXP_DIR / "decode_test_window/hyp.trn")
    assert references.keys() == hypotheses.keys()
    assert any(len(references[id]) < 3 for id in references)


class Killed(Exception):
    """As a signal would."""


def test_a_run_that_was_killed_ends_bit_equal(corpus, monkeypatch):
    options = make(training__epochs=2, window_model__dropout=0.1)
    whole, killed = Path("exp/toy/masked_window/whole"), Path("exp/toy/masked_window/killed")
    for folder in (whole, killed):
        config.save(options, folder / "config.yaml")
    train.main(whole)
    done, learn = 0, Trainer._learn

    def until(self, batch):
        nonlocal done
        done += 1
        if done == 14:  # of 13 batches an epoch or so, not at a checkpoint
            raise Killed
        learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_learn", until)
        with pytest.raises(Killed):
            train.main(killed)
    train.main(killed)
    models = [
        checkpoint.load(folder / "checkpoints/averaged.safetensors", ["model"], "")["model"]
        for folder in (whole, killed)
    ]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    epochs = [
        [json.loads(line) for line in (folder / "log/epochs.jsonl").read_text().splitlines()]
        for folder in (whole, killed)
    ]
    for one, other in zip(*epochs, strict=True):
        assert {**one, "train_seconds": 0} == {**other, "train_seconds": 0}


def test_the_audit_of_all_sets(corpus):
    assert check.audit(make()) == []
    notes = check.audit(make(window__frames=8))
    assert [note.partition(":")[0] for note in notes] == ["train", "dev", "test"]


def test_what_windows_do_not_do_is_refused():
    with pytest.raises(UserError, match=r"tokens\.kind is char; windows are of words"):
        make(tokens__kind="char")


@pytest.mark.slow
def test_the_page_shows_windows(trained):
    config.save(make(), trained / "config.yaml")
    run("local/results.py", str(trained))
    report.main(trained, "test", num=4)
    page = (trained / "report/index.html").read_text(encoding="utf-8")
    shown = re.findall(r"<h3>(.*?)</h3><table>\n<tr>(.*?)</tr>\n<tr>(.*?)</tr>", page)
    references = trn(trained / "decode_test_window/ref.trn")
    assert len(shown) >= 4
    for id, true, _ in shown:
        assert re.findall("<td.*?>(.*?)</td>", true) == references[id]
    assert page.count("<audio controls") == len(shown)
    with pytest.raises(UserError, match="--num 0: show 1 to 50 windows"):
        report.main(trained, num=0)
