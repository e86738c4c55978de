"""Options put to use by the code that reads them, on a corpus of a few tones; for the sweep."""

import dataclasses
import importlib
import json
import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from plateau import config
from plateau.alignment.windows import windows_of
from plateau.config import UserError
from plateau.data.corpus import Corpus
from plateau.data.features import FeatureOptions, compute_features, make_cuts
from plateau.data.kaldi import Utterance, read_data_dir, write_data_dir
from plateau.data.loading import Batch, BatchLoader, load_batch
from plateau.data.sequence_loading import SequenceLoader
from plateau.data.sequences import SequenceSet, sequence_corpus
from plateau.data.tokens import LexiconTokenizer, make_lang, read_lang
from plateau.data.window_loading import WindowLoader
from plateau.data.windows import WindowOptions
from plateau.decoding.run import decode_test_sets
from plateau.io import read_json
from plateau.models.blstm import BlstmOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.text_decoder import TextDecoderOptions
from plateau.models.vae import VaeOptions
from plateau.models.vrnn import VrnnOptions
from plateau.models.window import WindowModelOptions
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.interfaces import Loss, LossFunction
from plateau.training.recipe import Recipe, load_final, train
from plateau.training.spec_augment import SpecAugmentOptions
from tests.egs.test_iam_ondb import make_corpus as iam_corpus
from tests.egs.test_omniglot import make_corpus as omniglot_corpus
from tests.job import run, start
from tests.spoken import WORDS, write_set
from tests.training.toy import RATE, speak
from tests.vrnn import tiny

ARPA = """\\data\\
ngram 1=6

\\1-grams:
-1.0 <s>
-0.5 </s>
-0.7 ab
-0.7 a
-0.7 b
-0.7 c

\\end\\
"""
# Of a training.
SHORT: dict[str, Any] = {"average_last": 1, "spec_augment": SpecAugmentOptions(p=0)}
# Where a field counts only beside others.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("vrnn.output", "bins"): {"kind": "logistics"},
    ("vrnn.output", "masked_dim"): {"autoregressive": True},
    ("vrnn.output", "masked_layers"): {"autoregressive": True},
    ("vae.output", "bins"): {"kind": "logistics"},
    ("vae.output", "masked_dim"): {"autoregressive": True},
    ("vae.output", "masked_layers"): {"autoregressive": True},
    ("vae", "channels"): {"kind": "conv"},
    ("bound", "kl_steps"): {"kl_schedule": "linear"},
    ("predictor", "zoneout"): {"kind": "lstm"},
    ("loss", "focal_factor"): {"kind": "viterbi", "aligner": "transducer"},
    ("masking", "share"): {"schedule": "fixed", "full": 0.0},
    ("masking", "steps"): {"schedule": "decreasing", "full": 0.0},
    ("transducer:loss", "label_smoothing"): {"kind": "viterbi", "aligner": "transducer"},
    ("loss", "chunk"): {"kind": "viterbi", "aligner": "transducer"},
    ("loss", "alignment"): {"kind": "viterbi", "aligner": "file"},
    ("loss.prior", "scale"): {"estimator": "moving_average"},
    ("loss.prior", "floor"): {"estimator": "moving_average"},
    ("loss.prior", "decay"): {"estimator": "moving_average"},
    ("tokens", "lexicon"): {"kind": "phone"},
    ("decoding", "arpa"): {"methods": ("fast_beam_lg",)},
    ("transducer:decoding", "lm_scale"): {"methods": ("fast_beam_lg",), "arpa": "words.arpa"},
    ("--", "prior_scale"): {"loss": "sum_with_prior"},
    ("--", "prior_scale_end"): {"loss": "sum_with_prior"},
    ("--", "prior_momentum"): {"loss": "sum_with_prior"},
    ("--", "rnd_scale"): {"init": "normal"},
    ("--", "bias"): {"model": "ffnn", "input": "0x3 1x3"},
    ("--", "input"): {"frames": None},
    ("--", "fsa"): {"target": None},
    ("--", "topology"): {"target": None},
}


WINDOW = ("masking", "window", "window_model", "window_loss")
# Sections of the model and its loss.
MODEL = ("encoder", "predictor", "joiner", "decoder", "masking", "loss")


def changes_beside(where: str, name: str) -> dict[str, Any]:
    """What a field needs beside it to count."""
    section = where.partition(":")[2] or where
    return BESIDE.get((where, name)) or BESIDE.get((section, name), {})


# Those who look at all fields, whatever becomes of them.
BOOKKEEPING = {"check_options", "check", "__post_init__", "replace", "_replace", "__eq__"}
BOOKKEEPING |= {"asdict", "_asdict_inner", "__repr__", "__hash__", "_shared", "check_fields"}


@contextmanager
def watched(part: Any) -> Iterator[set[str]]:
    """Note which fields of these options are read; copies of them are watched, too."""
    read: set[str] = set()
    cls = type(part)

    class Watched(cls):
        def __getattribute__(self, name: str) -> Any:
            caller = sys._getframe(1).f_code.co_name
            if caller not in BOOKKEEPING and not name.startswith("__"):
                read.add(name)
            return super().__getattribute__(name)

    object.__setattr__(part, "__class__", Watched)
    try:
        yield read
    finally:
        object.__setattr__(part, "__class__", cls)


class Uses:
    """A corpus of tones with an untrained model of each recipe, and what options are used for."""

    def __init__(self, folder: Path) -> None:
        """Make them in ``folder``, the current one."""
        self.folder = folder
        rng = np.random.default_rng(0)
        sets = {"train": ["ab c", "cc", "a b", "ba", "ab", "c"], "dev": ["a"], "test": ["ab", "c"]}
        for set_name, texts in sets.items():
            Path("audio", set_name).mkdir(parents=True)
            utterances = []
            for number, text in enumerate(texts):
                audio = f"audio/{set_name}/{number}.wav"
                soundfile.write(audio, speak(text.replace(" ", ""), rng), RATE)
                utterances.append(Utterance(f"{set_name}-{number}", set_name, text, audio))
            write_data_dir(Path("data/toy", set_name), utterances)
        self.experiments = {}
        for recipe in ("conformer_ctc", "transducer", "masked_text"):
            self.experiments[recipe] = experiment = Experiment(Path("exp/toy", recipe, "x"))
            added = {
                "conformer_ctc": ["loss.prior.estimator=batch"],
                "transducer": ["predictor.dim=8", "joiner.dim=8"],
                "masked_text": ["decoder.dim=8", "decoder.num_layers=1", "decoder.num_heads=2"],
            }[recipe]
            start(recipe, experiment.path, [*added, "features.perturb_speed=[]"])
        config = str(experiment.config)
        run("local/make_manifests.py", "data/toy")
        run("local/compute_fbank.py", "data/toy", config, "--nj", "1")
        run("local/make_tokens.py", "data/toy", config)
        Path("words.arpa").write_text(ARPA)
        self.corpus = Corpus(Path("data/toy"))
        self.cuts = self.corpus.cuts("train").to_eager()

    def options(self, recipe: str) -> Any:
        """The options of a recipe's experiment."""
        cls = importlib.import_module(f"{recipe}.options").Options
        return self.experiments[recipe].options(cls)

    def use(self, where: str, name: str, part: Any) -> None:
        """Let the code that reads the field ``name`` of the section ``where`` use these options."""
        recipe, _, section = where.partition(":")
        if where == "--":
            toy_experiment(part)
        elif section == "corpus":
            getattr(self, recipe)(part)
        elif recipe == "vrnn" and section.split(".")[0] != "training":
            self.vrnn(section, part)
        elif recipe == "masked_window" and section in ("", *WINDOW):
            self.windows(section, part)
        elif section.split(".")[0] in MODEL:
            two_steps(recipe, section, part)
        elif section.split(".")[0] == "training":
            self.training(recipe, section, name, part)
        else:
            users: dict[str, Callable[[str, Any], None]] = {
                "experiment": self.experiment,
                "features": self.features,
                "tokens": self.tokens,
                "loading": self.loading,
                "decoding": self.decoding,
            }
            users[section or "experiment"](recipe, part)

    def experiment(self, recipe: str, part: Any) -> None:
        """Sets are found, and the model that training starts with is made."""
        corpus = corpus_of(part)
        corpus.check_train()
        assert corpus.dev_set() == "dev" and corpus.test_sets() == ["dev", "test"]
        if getattr(part, "init_from", ""):
            options = self.options(recipe)
            options = dataclasses.replace(options, init_from=part.init_from)
            importlib.import_module(f"{recipe}.train").build(options)

    def features(self, recipe: str, part: Any) -> None:
        """Features of a second of audio or two, stored and loaded, or computed on the fly."""
        manifests = self.corpus.recordings("train"), self.corpus.supervisions("train")
        cuts = make_cuts(*manifests, part, perturb=True)
        assert len(cuts) == 6 * (1 + len(part.perturb_speed))
        if not part.on_the_fly:
            cuts = compute_features(cuts, part, self.folder / "features")
        batch = load_batch(cuts, part)
        assert batch.features.isfinite().all() and batch.features.std() > 0.1
        assert batch.features.shape == (len(cuts), int(batch.lengths.max()), part.num_mel_bins)
        assert batch.seconds > 1

    def tokens(self, recipe: str, part: Any) -> None:
        """A token folder, by which a text comes back as it was."""
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = make_lang(Path(folder), ["ab c", "cc"], part)
            assert tokenizer.decode(tokenizer.encode("ab c")) == tokenizer.reference("ab c")

    def loading(self, recipe: str, part: Any) -> None:
        """All utterances, each once."""
        loader = BatchLoader(self.cuts, part, FeatureOptions(), shuffle=True)
        batches = list(loader.batches())
        assert sorted(id for batch in batches for id in batch.ids) == sorted(self.cuts.ids)
        assert all(batch.features.isfinite().all() for batch in batches)
        assert loader.num_batches() == len(batches)

    def training(self, recipe: str, section: str, name: str, part: Any) -> None:
        """Two epochs of the recipe's own training, to a final model."""
        options = self.options(recipe)
        training = dataclasses.replace(options.training, epochs=2, **SHORT)
        if section == "training":
            training = part
        else:
            training = dataclasses.replace(training, **{section.split(".")[1]: part})
        options = dataclasses.replace(options, training=training)
        module = importlib.import_module(f"{recipe}.train")
        with tempfile.TemporaryDirectory() as folder:
            if name == "max_skipped":
                with pytest.raises(UserError, match=f"in {part.max_skipped + 1} batches"):
                    train(Path(folder), options, altered(module.build, math.nan))
                return
            train(Path(folder), options, altered(module.build))
            lines = (Path(folder) / "log/epochs.jsonl").read_text().splitlines()
            found = [json.loads(line) for line in lines]
            assert found and all(math.isfinite(v) for record in found for v in record.values())
            _, model = load_final(Experiment(Path(folder)), type(options), module.build_model)
        assert all(parameter.isfinite().all() for parameter in model.parameters())

    def decoding(self, recipe: str, part: Any) -> None:
        """Both test sets by every method, and their scores."""
        options = self.options(recipe)
        torch.manual_seed(0)
        model = importlib.import_module(f"{recipe}.train").build(options).model.eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        encode, searches = importlib.import_module(f"{recipe}.decode").decoder(model, options, part)
        factor, tokenizer = model.encoder.subsampling_factor, read_lang(lang_dir(options))
        with tempfile.TemporaryDirectory() as folder:
            experiment = Experiment(Path(folder))
            decode_test_sets(experiment, options, part, tokenizer, factor, encode, searches)
            for method in part.methods:
                records = read_json(experiment.decode_dir("test", method) / "metrics.json")
                values = {record["metric"]: record["value"] for record in records}
                assert values.keys() >= {"wer", f"rtf_batch_{part.batch_sizes[0]}"}
            if recipe == "masked_text":
                self.filling(model, options, part)

    def filling(self, model: Any, options: Any, part: Any) -> None:
        """Holes in both test sets are filled, as many as asked for."""
        from masked_text.holes import fill_methods, fill_test_sets

        with tempfile.TemporaryDirectory() as folder:
            experiment = Experiment(Path(folder))
            fill_test_sets(experiment, options, model, part)
            for method in fill_methods(part):
                records = read_json(experiment.decode_dir("test", method) / "metrics.json")
                values = {record["metric"]: record["value"] for record in records}
                assert 0 <= values["masked_words_right"] <= 100

    def windows(self, section: str, part: Any) -> None:
        """Two steps of training on windows of words."""
        from masked_window.options import Options
        from masked_window.train import build

        folder = Path("data/spoken")
        small = {
            "features": FeatureOptions(sampling_rate=8000, num_mel_bins=20, backend="lhotse"),
            "window": WindowOptions(30, 3, frame_stride=3, batch_size=4),
            "window_model": WindowModelOptions(8, 1, 1, 2, 8),
        }
        options = part if not section else Options(data_dir=str(folder))
        options = dataclasses.replace(options, **{k: v for k, v in small.items() if k != section})
        if section:
            options = dataclasses.replace(options, **{section: part})
        if not folder.exists():
            for set_name in ("train", "dev", "test"):
                write_set(folder / set_name, [" ".join(list(WORDS)[:3])] * 4)
            config.save(Options(data_dir=str(folder), features=small["features"]), Path("w.yaml"))
            run("local/make_manifests.py", str(folder))
            run("local/compute_fbank.py", str(folder), "w.yaml", "--nj", "1")
            run("local/make_tokens.py", str(folder), "w.yaml")
        corpus = corpus_of(options)
        corpus.check_train()
        assert corpus.dev_set() == "dev" and corpus.test_sets() == ["dev", "test"]
        windows = windows_of(corpus, "train", options.window)
        tokenizer = read_lang(lang_dir(options))
        batches = WindowLoader(windows, options.features, tokenizer).batches()
        torch.manual_seed(0)
        recipe = build(options)
        learn(recipe.model, recipe.loss_function, list(islice(batches, 2)))

    def vrnn(self, section: str, part: Any) -> None:
        """Two steps of training on drawings or images, and an evaluation."""
        from vrnn.decode import evaluate
        from vrnn.options import Options
        from vrnn.train import build

        for kind in ("strokes", "images"):
            if not Path("data", kind).exists():
                tiny.make_corpus(kind, Path("data", kind))
        first, _, rest = section.partition(".")
        if rest:
            small = {"vrnn": VrnnOptions(**tiny.VRNN), "vae": VaeOptions(**tiny.VAE)}[first]
            part = dataclasses.replace(small, **{rest: part})
        if section:
            model, kind = ("vae", "images") if first == "vae" else ("vrnn", "strokes")
            options = Options(data_dir=f"data/{kind}", model=model, vrnn=VrnnOptions(**tiny.VRNN))
            part = dataclasses.replace(options, **{first: part})
        corpus = sequence_corpus(part.sequences, part.dev_set, part.test_sets)
        train = SequenceSet(corpus.root / "train")
        assert corpus.dev_set() == "dev" and corpus.test_sets() == ["dev", "test"]
        torch.manual_seed(0)
        recipe = build(part)
        batches = SequenceLoader(train, part.loading, train=True).batches()
        learn(recipe.model, recipe.loss_function, list(islice(batches, 2)) * 2)
        figures, rows = evaluate(recipe.model.eval(), train, part, part.decoding)
        assert len(rows) == len(train) and all(map(math.isfinite, figures.values()))

    def strokes(self, part: Any) -> None:
        """Two lines of handwriting."""
        prepare = sys.modules["sweep_strokes"]
        lines = prepare.texts(random.Random(part.seed))
        made = prepare.make_set("train", 2, part, lines)
        assert len(made) == 2 and all(np.isfinite(line.values).all() for line in made)

    def omniglot(self, part: Any) -> None:
        """Characters of 20 drawers."""
        self._sequences("omniglot", omniglot_corpus, part)

    def iam_ondb(self, part: Any) -> None:
        """Four forms."""
        self._sequences("iam_ondb", iam_corpus, part)

    def _sequences(self, name: str, make_corpus: Callable[[Path], Path], part: Any) -> None:
        values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        Path(f"{name}.yaml").write_text(json.dumps({"corpus": values}))
        given = self.folder / f"given_{name}"
        if not given.exists():
            make_corpus(given)
        made = self.folder / name
        sys.modules[f"sweep_{name}"].main(made, given, Path(f"{name}.yaml"))
        assert np.isfinite(SequenceSet(made / "train").all).all()

    def espeak(self, part: Any) -> None:
        """The plan of all four sets, and a second of speech by it."""
        batch, prepare = importlib.import_module("batch"), sys.modules["sweep_espeak"]
        for set_options in part.sets():
            jobs = prepare.batches(set_options, part.seed, self.folder)
            assert sum(job[3] for job in jobs) == set_options.seconds or len(jobs) > 1
        options, seed, index, _, texts, folder = jobs[0]
        with importlib.import_module("speech").espeak():
            made = batch.make_batch(options, seed, index, 1.0, texts, folder)
        assert len(made) == 1 and made[0].words and Path(made[0].audio).stat().st_size > 10_000

    def fsdd(self, part: Any) -> None:
        """Strings of a few recordings of noise, in three sets."""
        rng = np.random.default_rng(0)
        recordings = self.folder / "recordings"
        recordings.mkdir(exist_ok=True)
        for index in (0, 1, 2, 5, 6, 7, 10, 11, 12):
            path = recordings / f"{index % 10}_anna_{index}.wav"
            soundfile.write(path, rng.uniform(-0.5, 0.5, 2000), 8000)
        prepare = sys.modules["sweep_fsdd"]
        options = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        prepare.main(self.folder / "fsdd", recordings, **options)
        made = read_data_dir(self.folder / "fsdd/train")
        assert len(list(made)) == part.repeats


def altered(build: Callable[[Any], Recipe], factor: float = 1.0) -> Callable[[Any], Recipe]:
    """The same with a factor on the loss, and without pictures, which take most of the time."""

    def build_altered(options: Any) -> Recipe:
        recipe = build(options)

        def loss_function(model: torch.nn.Module, batch: Batch) -> Loss:
            loss = recipe.loss_function(model, batch)
            return dataclasses.replace(loss, total=loss.total * factor)

        return dataclasses.replace(recipe, loss_function=loss_function, watch=None)

    return build_altered


def toy_experiment(part: Any) -> None:
    """Three steps of a toy experiment."""
    from toy_peaky.training import train

    for result in train(part):
        values = [*result.loss, *result.avg_softmax, *result.avg_soft_alignment, result.entropy]
        assert all(map(math.isfinite, values)), part
        assert 0 <= result.min_blank_prob <= 1


def two_steps(recipe: str, section: str, part: Any) -> None:
    """A small model of random parameters learns two steps."""
    if section.startswith("encoder."):
        part, section = EncoderOptions(section[8:], **{section[8:]: part}), "encoder"
    parts = {
        "encoder": EncoderOptions("blstm", blstm=BlstmOptions(dim=8, num_layers=1)),
        "predictor": PredictorOptions(dim=8),
        "joiner": JoinerOptions(dim=8),
    }
    parts |= {"decoder": TextDecoderOptions(8, 1, 2, 8), section: part}
    torch.manual_seed(0)
    makers = {"conformer_ctc": _ctc, "transducer": _transducer, "masked_text": _masked_text}
    model, loss_function = makers[recipe](**parts_of(parts))
    learn(model, loss_function, [_batch()] * 2)


def learn(model: torch.nn.Module, loss_function: LossFunction, batches: list[Any]) -> None:
    """A step of training on each batch; all stays finite."""
    optimizer = torch.optim.AdamW(model.parameters())
    for batch in batches:
        loss = loss_function(model, batch)
        assert loss.total.isfinite()
        assert loss.total != 0
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def parts_of(parts: dict[str, Any]) -> dict[str, Any]:
    """Sections as names of arguments."""
    return {name.replace(".", "_"): part for name, part in parts.items()}


TOKENIZER = LexiconTokenizer(
    ["<blk>", "<unk>", "a", "b", "c"], {"ab": ["a", "b"], "cc": ["c", "c"]}, phones=True
)


def _batch() -> Batch:
    features = torch.randn(2, 60, 20, generator=torch.Generator().manual_seed(0))
    return Batch(features, torch.tensor([60, 44]), ["ab cc", "ab"], ["1", "2"], 1.04)


def _masked_text(encoder, decoder, loss=None, masking=None, **others):
    from masked_text.options import LossOptions
    from masked_text.train import make_loss
    from plateau.data.masking import MaskingOptions
    from plateau.models.masked_text import MaskedTextModel

    model = MaskedTextModel(20, 5, encoder, decoder).train()
    loss, masking = loss or LossOptions(), masking or MaskingOptions()
    return model, make_loss(model, TOKENIZER, loss, masking)


def _ctc(encoder, loss=None, loss_prior=None, **others):
    from conformer_ctc.options import LossOptions
    from conformer_ctc.train import make_loss
    from plateau.models.ctc import CtcModel

    loss = loss or LossOptions(**({"prior": loss_prior} if loss_prior else {}))
    model = CtcModel(20, 5, encoder, loss.prior).train()
    return model, make_loss(model, TOKENIZER, loss)


def _transducer(encoder, predictor, joiner, loss=None, **others):
    from plateau.models.transducer import TransducerModel
    from transducer.options import LossOptions
    from transducer.train import make_loss, read_alignments

    loss = loss or LossOptions()
    model = TransducerModel(20, 5, encoder, predictor, joiner, loss.ctc_layers).train()
    return model, make_loss(model, TOKENIZER, loss, read_alignments(loss))
