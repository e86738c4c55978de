import itertools
import math

import pytest
import torch

pytest.importorskip("k2")

from plateau.decoding.holes import HoleFiller, full_sums, word_scores
from plateau.graphs.holes import UnknownWords
from plateau.models.text_decoder import Memory

V, MASK = 4, 4
WORDS = {(1, 2): -0.5, (1, 3): -0.5, (2,): -1.0}


def posteriors(labels, prob=0.9):
    """Frames that are rather sure of a label each."""
    probs = torch.full((len(labels), V), (1 - prob) / (V - 1))
    probs[range(len(labels)), labels] = prob
    return probs.log()


def all_paths(log_probs, tokens):
    total = 0.0
    for path in itertools.product(range(V), repeat=len(log_probs)):
        if [label for label, _ in itertools.groupby(path) if label] == list(tokens):
            total += math.exp(sum(float(log_probs[t, label]) for t, label in enumerate(path)))
    return math.log(total) if total else -math.inf


def test_full_sums_by_enumeration():
    log_probs = torch.randn(5, V, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    targets = [(1, 2), (2,), (3, 3, 3), (), (1, 2, 3, 1, 2, 3)]
    expected = [all_paths(log_probs, target) for target in targets]
    assert full_sums(log_probs, targets).tolist() == pytest.approx(expected, abs=1e-4)


def nothing(frames):
    return Memory(torch.zeros(1, frames, 2), torch.zeros(1, frames), torch.tensor([frames]))


class Decoder:
    """Says the same at each place, and keeps what it was given."""

    mask_id = MASK

    def __init__(self, *probs):
        self.log_probs, self.given = torch.tensor(probs).log(), []

    def __call__(self, tokens, num_tokens, memory):
        self.given += [
            row[:number] for row, number in zip(tokens.tolist(), num_tokens.tolist(), strict=True)
        ]
        return self.log_probs.expand(*tokens.shape, -1)


def test_a_word_is_scored_with_all_its_tokens_masked():
    decoder = Decoder(0.1, 0.2, 0.3, 0.4)
    found = word_scores(decoder, nothing(6), [(3,), (1, 2), (2, 2)], 1, list(WORDS))
    assert decoder.given == [[3, MASK, 2, 2], [3, MASK, MASK, 2, 2]]
    expected = [0.2 * 0.3, 0.2 * 0.4, 0.3]
    assert found.exp().tolist() == pytest.approx(expected)


def fill(log_probs, items, **options):
    options = {"decoder": None, "words": WORDS, "max_words": 2} | options
    return HoleFiller(**options).fill(log_probs, nothing(len(log_probs)), items)


def test_what_is_heard_is_filled_in():
    log_probs = posteriors([3, 0, 1, 2, 0, 2, 0, 3])
    filled = fill(log_probs, [(3,), None, (3,)])
    assert [(word.item, word.tokens) for word in filled.words] == [
        (0, (3,)),
        (1, (1, 2)),
        (1, (2,)),
        (2, (3,)),
    ]
    assert filled.hypothesis.tokens == (3, 1, 2, 2, 3)
    assert filled.hypothesis.frames == (0, 2, 3, 5, 7)


def test_confidence_is_a_share_among_known_words():
    log_probs = posteriors([1, 0, 2, 0], prob=0.7)
    (word,) = fill(log_probs, [None], max_words=1).words
    scores = {known: all_paths(log_probs, known) + weight for known, weight in WORDS.items()}
    total = sum(map(math.exp, scores.values()))
    expected = {known: math.exp(score) / total for known, score in scores.items()}
    assert dict(word.candidates) == pytest.approx(expected, abs=1e-5)
    assert word.tokens == max(expected, key=expected.get)
    assert word.confidence == pytest.approx(max(expected.values()))


def test_words_that_are_given_stay_and_have_no_confidence():
    # Not what is heard, and no word that is known.
    log_probs = posteriors([1, 0, 2, 0, 1, 2])
    filled = fill(log_probs, [(3, 3), None])
    assert filled.words[0].tokens == (3, 3)
    assert filled.words[0].confidence is None


def test_words_that_are_given_are_found_though_nothing_of_them_is_heard():
    log_probs = posteriors([0, 0, 0, 0, 0, 2, 0], prob=1 - 1e-7)  # a 3 is 17 nats below blank
    filled = fill(log_probs, [(3,), (3,), None], search_beam=10.0)
    assert [word.tokens for word in filled.words] == [(3,), (3,), (2,)]


def test_the_decoder_has_its_say():
    # CTC hears 1 2 rather than 1 3; the decoder would have 3s.
    log_probs = torch.tensor([[0.1, 0.8, 0.05, 0.05], [0.1, 0.1, 0.45, 0.35]]).log()
    assert fill(log_probs, [None], max_words=1).words[0].tokens == (1, 2)
    decoder = Decoder(0.1, 0.3, 0.1, 0.5)
    for scale, expected in ((0.0, (1, 2)), (1.0, (1, 3))):
        filled = fill(log_probs, [None], max_words=1, decoder=decoder, decoder_scale=scale)
        assert filled.words[0].tokens == expected


def test_words_that_are_not_known_can_be_spelt():
    log_probs = posteriors([3, 0, 2, 1])
    unknown = UnknownWords(-1.0, first=[3], inner=[1, 2])
    filled = fill(log_probs, [None], unknown=unknown)
    assert [word.tokens for word in filled.words] == [(3, 2, 1)]
    assert filled.words[0].confidence > 0.5
    dear = UnknownWords(-20.0, first=[3], inner=[1, 2])
    assert all(word.tokens in WORDS for word in fill(log_probs, [None], unknown=dear).words)


def test_none_where_the_audio_is_too_short():
    assert fill(posteriors([1, 2]), [(1,), (2,), None]) is None
