"""Each check is provoked by the mistake that it is there for."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("k2")

import conformer_ctc.train as recipe
import transducer.train
from plateau import config
from plateau.config import UserError
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.training.experiment import options_class
from tests.training.toy import RATE, speak

OVERRIDES = [
    "data_dir=data/toy",
    f"features.sampling_rate={RATE}",
    "features.num_mel_bins=20",
    "features.backend=lhotse",
    "tokens.kind=word",
    "training.schedule.warmup_steps=10",
    "encoder.conformer.dim=16",
    "encoder.conformer.num_layers=1",
    "encoder.conformer.num_heads=2",
    "encoder.conformer.feedforward_dim=16",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Job:
    """Stages 1 to 4 of a corpus of tones, in the current folder."""

    def __init__(self, load_script):
        self.scripts = {
            name: load_script(name)
            for name in ("make_manifests", "compute_fbank", "make_tokens", "check")
        }

    def write(self, set_name: str, texts: dict[str, str], silent: bool = False) -> None:
        """A data directory; words are letters, and each letter of ``abc`` is a tone."""
        random = np.random.default_rng(0)
        audio_dir = Path("audio", set_name)
        audio_dir.mkdir(parents=True, exist_ok=True)
        utterances = []
        for name, text in texts.items():
            samples = speak([c for c in text if c in "abc"] or "ab", random)
            audio = audio_dir / f"{name}.wav"
            soundfile.write(audio, np.zeros_like(samples) if silent else samples, RATE)
            utterances.append(Utterance(name, "spk", text, str(audio)))
        write_data_dir(Path("data/toy", set_name), utterances)

    def prepare(self, *overrides: str, recipe: str = "conformer_ctc") -> None:
        self.exp_dir = Path("exp/toy", recipe, "x")
        options = config.resolve(options_class(recipe), {}, [*OVERRIDES, *overrides])
        config.save(options, self.exp_dir / "config.yaml")
        self.scripts["make_manifests"].main(Path("data/toy"))
        self.scripts["compute_fbank"].main(Path("data/toy"), self.exp_dir / "config.yaml")
        self.scripts["make_tokens"].main(Path("data/toy"), self.exp_dir / "config.yaml")

    def check(self) -> None:
        self.scripts["check"].main(self.exp_dir)


TRAIN = {
    f"spk-{i}": text for i, text in enumerate(["a b c", "a", "b c b", "c", "a c b a c", "b a"])
}


@pytest.fixture
def job(load_script, tmp_path, monkeypatch) -> Job:
    monkeypatch.chdir(tmp_path)
    job = Job(load_script)
    job.write("train", TRAIN)
    job.write("test", {"spk-t0": "b a c", "spk-t1": "c a"})
    return job


def notes(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]


def test_a_good_corpus_gets_no_notes(job, capsys):
    job.prepare()
    capsys.readouterr()
    job.check()
    assert capsys.readouterr().out.splitlines() == [
        "the longest training utterance is spk-4, 0.8 s",
        "checked 6 training utterances and conformer_ctc: ready to train",
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_training_sets(job, capsys, count):
    job.write("train", dict(list(TRAIN.items())[:count]))
    job.prepare()
    job.check()
    assert notes(capsys) == []


def test_no_set_to_decode_is_an_error_and_naming_one_helps(job):
    Path("data/toy/test").rename("data/toy/heldout")
    job.prepare()
    with pytest.raises(UserError, match=r"no set to decode: .* it has heldout train") as error:
        job.check()
    (sets,) = re.findall("--test-sets '(.*)'", str(error.value))
    job.prepare(f"test_sets=[{sets.replace(' ', ',')}]")
    job.check()


@pytest.mark.parametrize("set_name", ["train", "dev"])
def test_utterances_longer_than_a_batch_are_an_error_and_the_advice_helps(job, set_name):
    job.write("dev", {"spk-d0": "a"})
    job.write(
        set_name, {"spk-8": "a b a b a b a b a b a", "spk-9": "a b a b a b a b a", "spk-x": "a"}
    )
    job.prepare("loading.max_duration=1.3")
    seconds = "2 utterances are longer than loading.max_duration=1.3 s; the longest is spk-8, 1.7 s"
    with pytest.raises(UserError, match=rf"^{set_name}: {re.escape(seconds)}\n") as error:
        job.check()
    job.prepare(re.findall(r"loading\.max_duration=\d+$", str(error.value))[0])
    job.check()


def test_memory_that_runs_out_names_the_longest_utterance(job, monkeypatch):
    job.prepare("loading.max_duration=1")
    make_loss = recipe.make_loss

    def hungry(model, tokenizer, options):
        loss_function = make_loss(model, tokenizer, options)

        def loss(model, batch):
            if model.training:
                torch.empty(10**16)  # more than any machine can address
            return loss_function(model, batch)

        return loss

    monkeypatch.setattr(recipe, "make_loss", hungry)
    with pytest.raises(UserError, match=r"out of memory .* the longest is spk-4, 0\.8 s"):
        job.check()


def test_a_model_that_does_not_fit_is_a_line(job, monkeypatch):
    job.prepare()
    # More than any machine can address.
    monkeypatch.setattr(recipe, "build_model", lambda options: torch.empty(10**16))
    with pytest.raises(UserError, match="the model does not fit into memory: lower its sizes"):
        job.check()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("A B", "known in lower case"), ("ä ö", "take the text in the same spelling")],
)
def test_a_set_of_unknown_tokens_is_an_error(job, text, reason):
    job.write("test", {"spk-t0": text, "spk-t1": text})
    job.prepare("tokens.kind=char")
    said = f"test: every token is <unk>: its text has '{text.split()[0]}' …, and the tokens are "
    with pytest.raises(UserError, match=f"(?s){said}.*{reason}") as error:
        job.check()
    assert "a b c" in str(error.value)


def test_an_utterance_of_the_test_set_is_in_training_too(job, capsys):
    job.write("test", {"spk-3": "c", "spk-4": "a b", "spk-t1": "c a"})
    job.prepare()
    job.check()
    assert notes(capsys) == ["note: test: 2 utterances are in train too, e.g. spk-3"]


def test_empty_transcripts(job, capsys):
    job.write("train", TRAIN | {"spk-8": "", "spk-9": ""})
    job.prepare()
    job.check()
    assert notes(capsys) == ["note: train: 2 transcripts are empty, e.g. of spk-8"]


def test_unknown_tokens(job, capsys):
    job.write("test", {"spk-t0": "b a d", "spk-t1": "c"})
    job.prepare()
    job.check()
    assert notes(capsys) == ["note: test: 25.00% of the tokens are <unk>; see tokens.kind"]


def test_transcripts_too_long_to_have_been_said(job, capsys):
    job.write("test", {"spk-t0": "a", "spk-t1": "a " + "x" * 20})
    job.prepare()
    job.check()
    fast = [note for note in notes(capsys) if "characters per second" in note]
    assert len(fast) == 1
    assert "test: 1 utterances have over 40 characters per second, e.g. spk-t1" in fast[0]


def test_silence_is_an_error(job):
    job.write("train", TRAIN, silent=True)
    job.prepare()
    with pytest.raises(UserError, match="are constant or not finite; is the audio silent"):
        job.check()


def test_utterances_too_short_for_their_tokens_are_told_and_left_out(job, capsys):
    """All but the longest quarter; the model's loss on them would be infinite."""
    too_long = {name: " ".join("abc" * 9) for name in ("spk-6", "spk-7", "spk-8", "spk-9")}
    job.write("train", {**TRAIN, **too_long})
    for name in too_long:  # a tenth of a second of audio
        samples, _ = soundfile.read(f"audio/train/{name}.wav")
        soundfile.write(f"audio/train/{name}.wav", samples[: RATE // 2], RATE)
    job.prepare()
    job.check()
    out = capsys.readouterr().out
    assert "left out 4 of 10 utterances, too short for their tokens: spk-6 needs" in out
    assert "ready to train" in out


@pytest.mark.parametrize("kind", ["conformer", "blstm"])
def test_a_model_that_does_not_leak_passes(job, kind):
    job.prepare(f"encoder.kind={kind}", "encoder.blstm.dim=16", "encoder.blstm.num_layers=1")
    job.check()


def leaky(monkeypatch, wrap) -> None:
    """Let the recipe build its model with a mistake put in by ``wrap``."""
    build = recipe.build

    def build_leaky(options):
        built = build(options)
        wrap(built.model)
        return built

    monkeypatch.setattr(recipe, "build", build_leaky)


def normalise_over_batch(model):
    """A norm over the wrong dimension."""
    norm = model.encoder.blocks[0].norm
    norm.forward = lambda x: (x - x.mean(dim=(0, 1))) / (x.std(dim=(0, 1)) + 1e-5)


def attend_to_other_utterances(model):
    """Neighbours in the batch are mixed."""
    attention = model.encoder.blocks[0].attention
    forward = attention.forward
    attention.forward = lambda x, *rest: forward(x, *rest) + 0.1 * forward(x.roll(1, 0), *rest)


def forget_padding_in_attention(model):
    attention = model.encoder.blocks[0].attention
    forward = attention.forward
    attention.forward = lambda x, positions, mask: forward(x, positions, torch.zeros_like(mask))


def forget_padding_in_convolution(model):
    convolution = model.encoder.blocks[0].convolution
    forward = convolution.forward
    convolution.forward = lambda x, mask: forward(x, torch.zeros_like(mask))


def forget_padding_in_subsampling(model):
    """Padding is read as if it belonged to the utterance."""
    subsampling = model.encoder.subsampling
    forward = subsampling.forward

    def unmasked(features, lengths):
        full = torch.full_like(lengths, features.shape[1])
        return forward(features, full)[0], subsampling.output_lengths(lengths)

    subsampling.forward = unmasked


@pytest.mark.parametrize(
    "mistake",
    [
        normalise_over_batch,
        attend_to_other_utterances,
        forget_padding_in_attention,
        forget_padding_in_convolution,
        forget_padding_in_subsampling,
    ],
)
def test_a_model_that_leaks_is_an_error(job, monkeypatch, mistake):
    job.prepare()
    leaky(monkeypatch, mistake)
    with pytest.raises(UserError, match="look for a wrong dimension or a missing padding mask"):
        job.check()


def test_a_loss_that_is_not_finite_is_an_error(job, monkeypatch):
    job.prepare()

    def poison(model):
        torch.nn.init.constant_(model.output.bias, float("nan"))

    leaky(monkeypatch, poison)
    with pytest.raises(UserError, match=r"an untrained model's loss is (nan|inf) on"):
        job.check()


def test_a_loss_far_from_chance_is_noted(job, monkeypatch, capsys):
    job.prepare()
    leaky(monkeypatch, lambda model: model.output.weight.data.mul_(1000))
    job.check()
    assert any("the untrained loss is" in note for note in notes(capsys))


def test_a_change_that_changes_nothing_is_noted(job, capsys):
    """Against the options that the experiment would have had."""
    job.prepare()
    default = Path("egs/toy/conf/conformer_ctc.yaml")
    default.parent.mkdir(parents=True)
    (job.exp_dir / "config.yaml").rename(default)
    job.prepare("encoder.blstm.dim=99", "loss.viterbi=0.2", "training.epochs=29")
    job.check()
    (note,) = notes(capsys)
    assert note.startswith(
        "note: encoder.blstm.dim is 99 in place of 256, and that changes neither"
    )
    job.prepare("loss.viterbi=0.2", "encoder.conformer.dim=8")
    job.check()
    assert notes(capsys) == []


def changed_loss(monkeypatch, change):
    """Let the recipe's loss get other log-probabilities than the model's."""
    graph_loss = recipe.graph_loss
    monkeypatch.setattr(
        recipe, "graph_loss", lambda log_probs, *rest: graph_loss(change(log_probs), *rest)
    )


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (lambda x: x.exp().log_softmax(2), "that is what comes of a softmax of a softmax"),
        (lambda x: x.log_softmax(1), "that is what comes of a softmax over the frames, not over"),
        (lambda x: 100 * x, "look at its axes, and what it sums"),
    ],
)
@pytest.mark.parametrize("topology", ["ctc", "silence"])
def test_a_loss_that_is_not_that_of_known_outputs_is_an_error(
    job, monkeypatch, change, mistake, topology
):
    job.prepare(f"loss.topology={topology}", "loss.after_steps=5", "decoding.methods=[lexicon]")
    job.check()
    changed_loss(monkeypatch, change)
    with pytest.raises(UserError, match=f"transcripts \\(loss.topology=.*\n{mistake}"):
        job.check()


def test_the_ctc_loss_of_a_transducer_is_looked_at(job, monkeypatch):
    job.prepare(*TRANSDUCER, "loss.ctc_layers=[1]", "loss.ctc_scales=[1]", recipe="transducer")
    job.check()
    ctc_loss = transducer.train.ctc_loss
    monkeypatch.setattr(
        transducer.train, "ctc_loss", lambda x, *rest: ctc_loss(x.exp().log_softmax(2), *rest)
    )
    with pytest.raises(UserError, match="that is what comes of a softmax of a softmax"):
        job.check()


WORDS = {"a": -0.5, "b": -0.5, "c": -0.5, "<s>": -9, "</s>": -0.5}
TRANSDUCER = ["predictor.dim=8", "joiner.dim=8", "loss.warm_up_steps=0"]


def write_arpa(path: str, words: dict[str, float]) -> None:
    """A language model of single words, with their log10 probabilities."""
    lines = "".join(f"{log_prob} {word}\n" for word, log_prob in words.items())
    Path(path).write_text(f"\\data\\\nngram 1={len(words)}\n\n\\1-grams:\n{lines}\n\\end\\\n")


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("conformer_ctc", ["dev_set=val"], r"--dev-set: data/toy has no set val; it has test, tr"),
        ("conformer_ctc", ["test_sets=[eval,test]"], r"--test-sets: data/toy has no set eval; it"),
        ("conformer_ctc", ["test_sets=['']"], r"--test-sets: data/toy has no set "),
        (
            "conformer_ctc",
            ["decoding.prior_scale=0.3"],
            r"decoding.prior_scale is 0.3, but the model has no label prior",
        ),
        (
            "conformer_ctc",
            ["loss.topology=hmm"],
            r"decoding.methods: greedy, .* equal tokens .* as in 'a c c",
        ),
        (
            "transducer",
            ["loss.after_steps=30"],
            r"loss.after_steps is 30, and the training has 30 steps: .* must be below 30",
        ),
        ("transducer", ["loss.ctc_layers=[2]", "loss.ctc_scales=[1]"], "layer"),
        ("transducer", ["init_from=exp/none"], r"exp/none/checkpoints.*(no such|not there)"),
        (
            "transducer",
            ["loss.kind=viterbi", "loss.aligner=file", "loss.alignment=none.txt"],
            "none.txt: no such alignment",
        ),
        (
            "transducer",
            ["loss.kind=viterbi", "loss.aligner=file", "loss.alignment=frames.txt"],
            "frames.txt: no alignment of spk-1",
        ),
        (
            "transducer",
            ["loss.kind=viterbi", "loss.aligner=file", "loss.alignment=empty.txt"],
            "empty.txt: no alignment of spk-0",
        ),
        (
            "transducer",
            ["loss.kind=viterbi", "loss.aligner=file", "loss.alignment=other.txt"],
            "other.txt: spk-0 has 2 frames, and its text 3 tokens",
        ),
        (
            "transducer",
            ["decoding.methods=[fast_beam_lg]", "decoding.arpa=none.arpa"],
            "none.arpa: no such file",
        ),
        (
            "transducer",
            ["decoding.methods=[fast_beam_lg]", "decoding.arpa=other.arpa"],
            "other.arpa has none of the 3 words",
        ),
        (
            "transducer",
            ["decoding.methods=[greedy,fast_beam]", "predictor.kind=lstm"],
            "fast_beam needs a stateless predictor",
        ),
    ],
)
def test_what_would_end_it_after_the_training_ends_it_now(job, recipe, overrides, message):
    """As it is said later, by the same functions."""
    pytest.importorskip("k2")
    job.write("train", TRAIN | {"spk-6": "a c c"})
    write_arpa("other.arpa", {"x": -0.5, "<s>": -9, "</s>": -0.5})
    Path("frames.txt").write_text("spk-0 1 2 3\n")
    Path("empty.txt").touch()
    Path("other.txt").write_text("spk-0 1 2\n")
    added = TRANSDUCER if recipe == "transducer" else []
    job.prepare("loading.num_buckets=1", *added, *overrides, recipe=recipe)
    with pytest.raises(UserError, match=message) as error:
        job.check()
    assert str(error.value).count("\n") < 3


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        ([], None),
        (
            ["training.schedule.warmup_steps=30"],
            "training.schedule.warmup_steps is 30, and the training has 30 steps: the learning "
            "rate does not reach its peak",
        ),
        (
            ["training.epochs=2", "training.schedule.warmup_steps=1"],
            "training.average_last is 5, and there are 2 epochs: the final model is the mean of "
            "all",
        ),
        (
            ["training.spec_augment.after_epochs=30"],
            "training.spec_augment.after_epochs is 30, and there are 30 epochs: nothing is masked",
        ),
        (["training.spec_augment.after_epochs=30", "training.spec_augment.p=0"], None),
        (
            ["loss.after_steps=20", "loss.warm_up_steps=11", "loss.viterbi=0.5"],
            "loss.after_steps is 20 and loss.warm_up_steps 11, and the training has 30 steps: it "
            "ends before all of the loss counts",
        ),
        (["loss.after_steps=20", "loss.warm_up_steps=10", "loss.viterbi=0.5"], None),
        (["loss.after_steps=99"], None),  # of plain CTC after plain CTC
    ],
)
def test_what_comes_after_the_end_of_the_training_is_noted(job, capsys, overrides, note):
    """The six utterances are one batch, and so a step an epoch."""
    job.prepare("loading.num_buckets=1", *overrides)
    job.check()
    assert notes(capsys) == ([f"note: {note}"] if note else [])


def test_every_method_is_tried(job, monkeypatch):
    """Also with what only some methods need."""
    pytest.importorskip("k2")
    write_arpa("words.arpa", WORDS)
    job.prepare(
        *TRANSDUCER,
        "decoding.methods=[greedy,modified_beam,fast_beam,fast_beam_lg]",
        "decoding.arpa=words.arpa",
        recipe="transducer",
    )
    tried = []
    decode_batch = job.scripts["check"].decode_batch

    def spy(batch, size, encode, searches):
        found, _ = decode_batch(batch, size, encode, searches)
        tried.append((batch.ids, {method: len(lists) for method, lists in found.items()}))

    monkeypatch.setattr(job.scripts["check"], "decode_batch", spy)
    job.check()
    methods = ("greedy", "modified_beam", "fast_beam", "fast_beam_lg")
    assert tried == [(["spk-t1"], dict.fromkeys(methods, 1))]
