import itertools
import math

import pytest
import torch

pytest.importorskip("k2")

from plateau.alignment import ctc
from plateau.alignment.files import Alignment, aligned_utterance, token_times
from plateau.graphs.topology import TOPOLOGIES
from plateau.models.conformer import ConformerOptions
from plateau.models.ctc import CtcModel
from plateau.models.encoder import EncoderOptions
from plateau.models.prior import PriorOptions
from plateau.models.subsampling import ConvSubsampling

V = 4
# Equal neighbours within a word and between words; one word of one token.
TRANSCRIPTS = [[[1, 2], [3]], [[1, 1]], [[2], [2, 3]], [[3]]]
SMALL = EncoderOptions(conformer=ConformerOptions(dim=16, num_layers=1, feedforward_dim=16))


def segmentations(num_frames, words, topology):
    """Every path by the topologies' definitions, as (label, frames) of each stretch.

    A path is a label of 0 or more frames before, between and after the tokens, which have one or
    more. Which of these stretches may or must be there is what makes a topology.
    """
    flat = [token for word in words for token in word]
    ends = set(itertools.accumulate(len(word) for word in words))  # a word ends before token i
    allowed = []  # of the stretch of blank before token i; the last is after all
    for i in range(len(flat) + 1):
        outer, boundary = i in (0, len(flat)), i == 0 or i in ends
        equal = not outer and flat[i] == flat[i - 1]
        any_number, none, some = range(num_frames), range(1), range(1, num_frames)
        allowed.append(
            {
                "ctc": some if equal else any_number,
                "ctc_without_inner_blank": any_number if outer else some if equal else none,
                "silence": any_number if boundary else none,
                "forced_silence": some if boundary else none,
                "hmm": none,
            }[topology]
        )
    choices = [allowed[0]]
    for blank in allowed[1:]:
        choices += [range(1, num_frames + 1), blank]
    labels = [0] + [label for token in flat for label in (token, 0)]
    for counts in itertools.product(*choices):
        if sum(counts) == num_frames:
            yield list(zip(labels, counts, strict=True))


def best_by_enumeration(scores, words, topology):
    """Labels of the best path, and the runs of its tokens."""

    def score(path):
        labels = [label for label, count in path for _ in range(count)]
        return float(scores[range(len(labels)), labels].sum())

    best = max(segmentations(len(scores), words, topology), key=score)
    runs, frame = [], 0
    for label, count in best:
        if label:
            runs.append((frame, frame + count))
        frame += count
    return [label for label, count in best for _ in range(count)], runs


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_best_paths_are_those_of_enumeration(topology, chain, monkeypatch):
    """Neither k2 nor the search in little memory misses a path."""
    if chain:
        monkeypatch.setattr(ctc, "MAX_LATTICE", 0)
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(4, 7, V, generator=generator)
    lengths = torch.tensor([7, 6, 7, 4])
    paths = ctc.best_paths(scores, lengths, TRANSCRIPTS, topology)
    for utterance, length, words, (labels, outputs) in zip(
        scores, lengths, TRANSCRIPTS, paths, strict=True
    ):
        expected, runs = best_by_enumeration(utterance[:length], words, topology)
        assert labels == expected
        found = ctc.token_runs(labels, outputs)
        flat = [token for word in words for token in word]
        assert [token for token in outputs if token] == flat
        if topology == "hmm" and len(set(flat)) < len(flat):
            continue  # of equal neighbours several paths have the same labels
        assert found == runs


@pytest.mark.parametrize("chain", [False, True])
def test_too_few_frames_and_no_text(chain, monkeypatch):
    if chain:
        monkeypatch.setattr(ctc, "MAX_LATTICE", 0)
    scores = torch.zeros(3, 3, V).log_softmax(2)
    lengths = torch.tensor([2, 3, 3])
    nothing, repeated, empty = ctc.best_paths(scores, lengths, [[[1, 1]], [[1], [1]], []], "ctc")
    assert nothing == ([], [])
    assert repeated == ([1, 0, 1], [1, 0, 1])
    assert empty == ([0, 0, 0], [0, 0, 0])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_long_chains_are_those_of_k2(topology):
    """With several blocks of frames, and many more states than in the enumeration."""
    generator = torch.Generator().manual_seed(1)
    scores = 4 * torch.randn(1, 150, 6, generator=generator)
    flat = torch.randint(1, 6, (40,), generator=generator).tolist()
    words = [flat[i : i + 3] for i in range(0, 40, 3)]
    lengths = torch.tensor([150])
    ((labels, outputs),) = ctc.best_paths(scores, lengths, [words], topology)
    segments = ctc.segments_of(topology, words, 0)
    chain_labels, chain_outputs = ctc.best_path_of_chain(scores[0], segments)
    assert chain_labels == labels
    if topology != "hmm":
        assert chain_outputs == outputs


class Letters:
    """Names of tokens."""

    tokens = ("<blk>", "a", "b", "c")


def test_times_and_confidences_by_hand():
    """Frames of 40 ms; frame t is from 40 t − 15 ms on, the first from 0."""
    # Blank between a and b is in the word, but does not count for its confidence.
    alignment = Alignment(
        frames=(0, 4, 7),
        score=-3.0,
        num_frames=8,
        runs=((0, 2), (3, 5), (7, 8)),
        log_posteriors=(2 * math.log(0.5), 2 * math.log(0.125), math.log(0.9)),
    )
    utterance = aligned_utterance("u", [("ab", [1, 2]), ("c", [3])], alignment, 4, Letters(), 0.315)
    assert utterance.tokens == (
        (0.0, pytest.approx(0.065), "a", None),
        (pytest.approx(0.105), pytest.approx(0.185), "b", None),
        (pytest.approx(0.265), pytest.approx(0.305), "c", None),
    )
    assert utterance.words == (
        (0.0, pytest.approx(0.185), "ab", pytest.approx(0.25)),
        (pytest.approx(0.265), pytest.approx(0.305), "c", pytest.approx(0.9)),
    )
    assert utterance.duration == 0.315
    assert token_times(alignment, 4)[1] == pytest.approx((0.105, 0.185))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_frames_needed_are_those_of_the_shortest_path(topology):
    for words in TRANSCRIPTS:
        shortest = next(
            num_frames
            for num_frames in itertools.count(1)
            if next(iter(segmentations(num_frames, words, topology)), None) is not None
        )
        assert ctc.frames_needed(topology, words) == shortest
    assert ctc.frames_needed(topology, [[], [1], []]) == ctc.frames_needed(topology, [[1]])


class Given(torch.nn.Module):
    """A model whose log-probabilities are its input."""

    def __init__(self, prior=None):
        super().__init__()
        self.prior = prior

    def forward(self, features, lengths):
        return features, lengths


def test_of_each_token_the_frame_of_the_largest_posterior():
    probs = [[0.6, 0.2, 0.2], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4], [0.2, 0.1, 0.7]]
    log_probs = torch.tensor([probs, probs]).log()
    found, cut = ctc.align(Given(), log_probs, torch.tensor([5, 1]), [[[1], [2]], [[1, 2]]])
    assert found.runs == ((1, 3), (4, 5)) and found.frames == (2, 4)
    assert found.score == pytest.approx(math.log(0.6 * 0.6 * 0.8 * 0.5 * 0.7), rel=1e-5)
    assert found.log_posteriors == pytest.approx((math.log(0.48), math.log(0.7)), rel=1e-5)
    assert found.sharpness == pytest.approx((0.6 + 0.6 + 0.8 + 0.5 + 0.7) / 5)
    assert found.entropy == pytest.approx(-sum(p * math.log(p) for row in probs for p in row) / 5)
    assert (cut.frames, cut.score, cut.num_frames) == ((), -math.inf, 1)


def test_with_the_prior_of_the_training():
    """Blank is divided by its prior, and the token lasts longer; the posteriors stay."""
    prior = ctc_prior([0.8, 0.1, 0.1])
    probs = torch.tensor([[[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]])
    lengths = torch.tensor([3])
    (plain,) = ctc.align(Given(prior), probs.log(), lengths, [[[1]]])
    (divided,) = ctc.align(Given(prior), probs.log(), lengths, [[[1]]], prior_scale=0.5)
    # 0.3 / √0.1 > 0.6 / √0.8, but 0.05 / √0.1 < 0.9 / √0.8.
    assert plain.runs == ((2, 3),) and divided.runs == ((1, 3),)
    assert divided.log_posteriors == pytest.approx([math.log(0.3 * 0.7)], rel=1e-5)
    # With a smaller exponent of the posteriors the prior weighs more: √0.05 / √0.1 < √0.9 / √0.8
    # is still so, with 0.1 no longer.
    (softer,) = ctc.align(
        Given(prior), probs.log(), lengths, [[[1]]], prior_scale=0.5, acoustic_scale=0.1
    )
    assert softer.runs == ((0, 3),)


def ctc_prior(shares):
    prior = CtcModel(8, len(shares), SMALL, PriorOptions(estimator="batch")).prior
    prior.prior.copy_(torch.tensor(shares))
    return prior


class Narrow(torch.nn.Module):
    """A network whose frames depend on no more than a few of the features around them."""

    def __init__(self):
        super().__init__()
        self.subsampling = ConvSubsampling(8, V, 4, 4)
        self.output_lengths = self.subsampling.output_lengths

    def forward(self, features, lengths):
        return self.subsampling(features, lengths)


def test_long_recordings_go_through_the_encoder_in_windows(monkeypatch):
    """With enough context, the frames of the windows together are those of the whole."""
    torch.manual_seed(0)
    model = Narrow()
    features = torch.randn(2, 331, 8)
    lengths = torch.tensor([331, 250])
    with torch.no_grad():
        whole, whole_lengths = model(features, lengths)
        monkeypatch.setattr(ctc, "WINDOW", 96)
        monkeypatch.setattr(ctc, "CONTEXT", 24)
        windowed, windowed_lengths = ctc.log_posteriors(model, features, lengths)
    assert windowed.shape == whole.shape
    assert windowed_lengths.tolist() == whole_lengths.tolist() == [83, 63]
    for n, length in enumerate([83, 63]):
        torch.testing.assert_close(windowed[n, :length], whole[n, :length])
