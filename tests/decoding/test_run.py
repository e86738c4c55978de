"""Test sets through `decode_test_sets`, with an encoder and searches whose times are known."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from lhotse import CutSet

from plateau.config import UserError
from plateau.data.corpus import Corpus
from plateau.data.tokens import LexiconTokenizer
from plateau.decoding import run
from plateau.decoding.run import CommonDecodingOptions, decode_test_sets, single
from plateau.io import read_json
from plateau.training.experiment import Experiment, SpeechOptions
from tests.training.toy import FEATURES, make_cut_set

TOKENS = ["<blk>", "<unk>", "a", "b", "c"]
TOKENIZER = LexiconTokenizer(TOKENS, {token: [token] for token in "abc"}, phones=False)
FIRST_USE = 1000.0  # seconds that only the first call takes


@dataclass(frozen=True)
class Hypothesis:
    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    log_posteriors: tuple[float, ...]
    score: float


class Fake:
    """Its encoder takes 1 s a batch, its searches 0.5 s an utterance; the clock is its own."""

    def __init__(self):
        self.now = 0.0
        self.batches = []  # utterances of each

    def encode(self, features, lengths):
        assert features.shape[:2] == (len(lengths), lengths.max())  # no more padding than needed
        self.now += 1.0 if self.batches else FIRST_USE
        self.batches.append(len(lengths))
        return features, lengths

    def greedy(self, encoded, lengths):
        """``a`` in the last frame, or ``b`` in batches smaller than 4."""
        self.now += 0.5 * len(lengths)
        token = TOKENS.index("a" if len(lengths) >= 4 else "b")
        return [
            Hypothesis((token,), ((length - 1) // 4,), (-0.5,), -1.0) for length in lengths.tolist()
        ]

    def beam(self, encoded, lengths):
        """Of the five hypotheses two say nothing: blank is not a word."""
        self.now += 1.5 * len(lengths)
        tokens = [(2, 3), (), (), (4,), (3, 2, 4)]
        return [
            [
                Hypothesis(t, tuple(range(len(t))), (-0.5,) * len(t), -0.25 - i)
                for i, t in enumerate(tokens)
            ]
            for _ in lengths
        ]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> CutSet:
    """Eight utterances."""
    return make_cut_set(tmp_path_factory.mktemp("cuts"), count=8)


@pytest.fixture
def decode(tmp_path, monkeypatch, cuts):
    """Decode these utterances by a `Fake`, which is returned."""
    corpus = Corpus(tmp_path / "toy")
    (corpus.root / "test").mkdir(parents=True)
    (corpus.root / "test" / "wav.scp").touch()  # it is what makes a folder a set
    manifest = corpus.manifest("cuts", "test")
    manifest.parent.mkdir()
    cuts.to_file(manifest)

    def decode(**options) -> Fake:
        fake = Fake()
        monkeypatch.setattr(run.time, "perf_counter", lambda: fake.now)
        decode_test_sets(
            Experiment(tmp_path),
            SpeechOptions(data_dir=str(corpus.root), features=FEATURES),
            CommonDecodingOptions(**options),
            TOKENIZER,
            4,
            fake.encode,
            {"greedy": single(fake.greedy), "beam": fake.beam},
        )
        return fake

    return decode


def metrics(decode_dir: Path) -> dict[str, float]:
    return {r["metric"]: r["value"] for r in read_json(decode_dir / "metrics.json")}


def test_real_time_factors_are_those_of_each_batch_size_without_the_first_use(
    decode, tmp_path, cuts
):
    fake = decode(batch_sizes=(4, 3, 8))
    # All are parts of the largest; before that, the first size once uncounted.
    assert fake.batches == [4, 4, 4, 4, 3, 3, 2, 8]
    audio = sum(cut.duration for cut in cuts)
    for method, search_seconds in (("greedy", 0.5 * 8), ("beam", 1.5 * 8)):
        found = metrics(tmp_path / f"decode_test_{method}")
        for size, encoder_seconds in ((4, 2.0), (3, 3.0), (8, 1.0)):
            expected = (encoder_seconds + search_seconds) / audio
            assert found[f"rtf_batch_{size}"] == pytest.approx(expected, abs=1e-4)


def test_batches_of_the_loaded_size_and_the_rest(decode):
    assert decode(batch_sizes=(5, 1)).batches == [5, 5, 1, 1, 1, 1, 1, 3, 1, 1, 1]
    assert decode(batch_sizes=(16,)).batches == [8, 8]


@pytest.mark.parametrize(("sizes", "word"), [((4, 1), "a"), ((1, 4), "b")])
def test_hypotheses_are_those_of_the_first_size(decode, tmp_path, cuts, sizes, word):
    decode(batch_sizes=sizes)
    decode_dir = tmp_path / "decode_test_greedy"
    lines = [f"{word} ({name})" for name in sorted(cuts.ids)]
    assert (decode_dir / "hyp.trn").read_text().splitlines() == lines
    # The hypothesis lies in the last frame of just this utterance; a frame is 0.04 s, see
    # `frame_times`.
    starts = {line.split()[0]: line.split()[2] for line in (decode_dir / "hyp.ctm").open()}
    assert starts == {
        cut.id: f"{max((cut.num_frames - 1) // 4 * 0.04 - 0.015, 0):.3f}" for cut in cuts
    }


def test_folders_of_other_methods_and_sets_are_set_aside(decode, tmp_path):
    old = ("decode_test_lexicon", "decode_test_gone_greedy", "decode_test_greedy")
    for folder in old:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metrics.json").write_text(f'["{folder}"]')
    decode()
    made = {"decode_test_greedy", "decode_test_beam"}
    assert {path.parent.name for path in tmp_path.glob("*/metrics.json")} == made
    for folder in old[:2]:  # nothing is lost
        assert (tmp_path / "before-1" / folder / "metrics.json").read_text() == f'["{folder}"]'
    decode()
    assert not (tmp_path / "before-2").exists()


def test_a_set_without_utterances_is_named(decode, tmp_path):
    manifest = Corpus(tmp_path / "toy").manifest("cuts", "test")
    CutSet.from_cuts([]).to_file(manifest)
    with pytest.raises(UserError, match=r"toy_cuts_test\.jsonl\.gz: no utterances to decode"):
        decode()


def test_ids_that_would_be_one_for_sclite_are_named(decode, tmp_path, cuts):
    manifest = Corpus(tmp_path / "toy").manifest("cuts", "test")
    names = ["a(1)", "a\uff081\uff09"]
    CutSet.from_cuts(cuts[i].with_id(name) for i, name in enumerate(names)).to_file(manifest)
    with pytest.raises(UserError, match=r"utterances a\S+ and a\S+ would both be .*; rename one"):
        decode()
    assert not list(tmp_path.glob("decode_*"))


def test_nbest_has_each_word_sequence_once_best_first(decode, tmp_path, cuts):
    decode(nbest=3)
    lines = (tmp_path / "decode_test_beam" / "nbest.txt").read_text().splitlines()
    expected = ("1 -0.2500 a b", "2 -1.2500", "3 -3.2500 c")
    assert lines == [f"{name} {line}" for name in sorted(cuts.ids) for line in expected]
    assert not (tmp_path / "decode_test_greedy" / "nbest.txt").exists()
    decode(nbest=0)
    assert not (tmp_path / "decode_test_beam" / "nbest.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": ()}, r"decoding.batch_sizes is \[\]"),
        ({"batch_sizes": (16, 0)}, r"decoding.batch_sizes is \[16, 0\]"),
        ({"batch_sizes": (4, 4)}, "each once"),
        ({"nbest": -1}, "decoding.nbest is -1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CommonDecodingOptions(**options)
