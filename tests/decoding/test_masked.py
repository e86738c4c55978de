"""With decoders whose answers are known."""

import math

import pytest
import torch

from plateau.decoding.ctc import greedy_search
from plateau.decoding.masked import fill_masks, mask_predict, missing_tokens
from plateau.models.masked_text import heard_places
from plateau.models.text_decoder import Memory

V, MASK = 5, 5


class Table:
    """Says at each place what a table says, and which tokens it was given."""

    mask_id = MASK

    def __init__(self, probs):
        self.log_probs = torch.tensor(probs).log()  # (U, V)
        self.given = []

    def __call__(self, tokens, num_tokens, memory):
        self.given.append(tokens.tolist())
        return self.log_probs[: tokens.shape[1]].expand(len(tokens), -1, -1).clone()


class Alternating:
    """A token is surely the one before it plus one, where that is known; else it is 1 or so."""

    mask_id = MASK

    def __call__(self, tokens, num_tokens, memory):
        probs = torch.full((*tokens.shape, V), 0.01)
        for n, row in enumerate(tokens.tolist()):
            for u in range(len(row)):
                before = row[u - 1] if u else 0
                probs[n, u, 1 if before == MASK else before % 4 + 1] = (
                    0.4 if before == MASK else 0.9
                )
        return (probs / probs.sum(2, keepdim=True)).log()


NOTHING = Memory(torch.zeros(1, 3, 2), torch.zeros(1, 3), torch.tensor([3]))
PROBS = [
    [0.0, 0.7, 0.1, 0.1, 0.1],
    [0.0, 0.1, 0.9, 0.0, 0.0],
    [0.0, 0.1, 0.2, 0.3, 0.4],
    [0.6, 0.1, 0.1, 0.2, 0.0],
]


def fill(decoder, tokens, **options):
    number = torch.tensor([len(tokens)])
    filled, scores = fill_masks(decoder, torch.tensor([tokens]), number, NOTHING, **options)
    return filled[0].tolist(), scores[0].exp().tolist()


def test_the_surest_come_first():
    table = Table(PROBS)
    filled, probs = fill(table, [MASK, MASK, MASK, 4], rounds=3)
    assert filled == [1, 2, 4, 4]
    assert probs == pytest.approx([0.7, 0.9, 0.4, 1.0])  # a token that is given has log 0
    assert [given[0] for given in table.given] == [
        [MASK, MASK, MASK, 4],
        [MASK, 2, MASK, 4],
        [1, 2, MASK, 4],
    ]


@pytest.mark.parametrize(("rounds", "calls"), [(1, 1), (2, 2), (0, 3), (9, 3)])
def test_as_many_rounds_as_asked_for_or_needed(rounds, calls):
    table = Table(PROBS)
    assert fill(table, [MASK, MASK, MASK], rounds=rounds)[0] == [1, 2, 4]
    assert len(table.given) == calls


def test_blank_is_no_token():
    assert fill(Table(PROBS), [1, 1, 1, MASK])[0] == [1, 1, 1, 3]


def test_order_by_entropy():
    # The second has the higher probability, and the higher entropy.
    rows = [[0.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.52, 0.16, 0.16, 0.16]]
    for order, first in (("confidence", [MASK, 1]), ("entropy", [1, MASK])):
        table = Table(rows)
        fill(table, [MASK, MASK], rounds=2, order=order)
        assert table.given[1] == [first]


def test_what_is_found_helps_in_later_rounds():
    assert fill(Alternating(), [MASK, MASK, MASK, MASK], rounds=0)[0] == [1, 2, 3, 4]
    assert fill(Alternating(), [MASK, MASK, MASK, MASK], rounds=1)[0] == [1, 1, 1, 1]


def test_corrections_find_all_that_was_masked_anew():
    assert fill(Alternating(), [MASK, MASK, MASK, 1], rounds=1, corrections=2)[0] == [1, 2, 3, 1]


def heard(*utterances):
    """Log-probabilities of frames that have these labels and probabilities, and the memory."""
    probs = torch.zeros(len(utterances), max(map(len, utterances)), V)
    for n, frames in enumerate(utterances):
        for t, (label, prob, *other) in enumerate(frames):
            probs[n, t] = 0.0 if other else (1 - prob) / (V - 1)
            probs[n, t, other] = 1 - prob
            probs[n, t, label] = prob
    lengths = torch.tensor([len(frames) for frames in utterances])
    log_probs = (probs + 1e-9).log()
    memory = Memory(torch.zeros(*probs.shape[:2], 2), heard_places(log_probs), lengths)
    return log_probs, memory


def spaced(tokens, probs):
    """Frames of tokens, with a sure blank after each."""
    return [frame for pair in zip(tokens, probs, strict=True) for frame in (pair, (0, 1.0))]


def test_tokens_of_a_low_posterior_are_found_anew():
    log_probs, memory = heard(spaced([4, 4, 4], [0.99, 0.5, 0.95]), spaced([3], [0.3]), [(0, 0.99)])
    decoder = Table(PROBS)
    found = mask_predict(decoder, log_probs, memory, threshold=0.9, rounds=1)
    assert [h.tokens for h in found] == [(4, 2, 4), (1,), ()]
    assert [h.frames for h in found] == [(0, 2, 4), (0,), ()]
    probs = [[math.exp(x) for x in h.log_posteriors] for h in found]
    assert probs == [pytest.approx([0.99, 0.9, 0.95]), pytest.approx([0.7]), []]
    assert found[0].score == pytest.approx(sum(found[0].log_posteriors))
    assert decoder.given[0][0] == [4, MASK, 4]


def test_where_all_is_sure_nothing_changes():
    log_probs, memory = heard(spaced([4, 3], [0.99, 0.95]))
    (found,) = mask_predict(Table(PROBS), log_probs, memory, threshold=0.9, corrections=1)
    (greedy,) = greedy_search(log_probs, memory.lengths)
    assert (found.tokens, found.frames, found.log_posteriors) == (
        greedy.tokens,
        greedy.frames,
        greedy.log_posteriors,
    )


class Counting(Alternating):
    """Says how long masks are by a table; remembers what it was asked, and where frames were."""

    max_length = 4

    def __init__(self, sizes):
        self.sizes, self.given, self.places = sizes, [], []

    def lengths(self, tokens, num_tokens, memory):
        self.given += tokens.tolist()
        self.places += memory.places_of_each()
        sizes = torch.tensor(self.sizes)[: tokens.shape[1]]
        return torch.nn.functional.one_hot(sizes, 5).float().log().expand(len(tokens), -1, -1)


def test_a_token_that_was_left_out_is_found_where_blank_is_not_sure():
    frames = [(1, 0.99), (0, 0.7, 2), (3, 0.99), (0, 0.99)]
    decoder = Counting([1, 1, 1])
    (found,) = mask_predict(decoder, *heard(frames), threshold=0.9, lengths=True)
    assert decoder.given == [[1, MASK, 3]]
    assert decoder.places == [[0, 1, 2, 2]]
    assert (found.tokens, found.frames) == ((1, 2, 3), (0, 1, 2))
    (found,) = mask_predict(Counting([1, 0, 1]), *heard(frames), threshold=0.9, lengths=True)
    assert (found.tokens, found.frames) == ((1, 3), (0, 2))
    decoder = Counting([])
    (found,) = mask_predict(decoder, *heard(frames), threshold=0.6, lengths=True)
    assert (found.tokens, decoder.given) == ((1, 3), [])


def test_a_token_that_is_not_there_goes():
    frames = spaced([1, 4, 2], [0.99, 0.5, 0.99])
    decoder = Counting([1, 0, 1])
    (found,) = mask_predict(decoder, *heard(frames), threshold=0.9, lengths=True)
    assert decoder.given == [[1, MASK, 2]]
    assert found.tokens == (1, 2)
    assert found.frames == (0, 4)


def test_pieces_are_half_as_long_as_they_may_become():
    frames = spaced([1, 2, 3, 4], [0.5, 0.5, 0.5, 0.99])
    decoder = Counting([3, 0, 1])
    (found,) = mask_predict(
        decoder, *heard(frames, [(0, 1.0)]), threshold=0.9, rounds=0, lengths=True
    )[:1]
    assert decoder.given[0] == [MASK, MASK, 4]
    assert found.tokens == (1, 2, 3, 4)


def test_more_tokens_than_frames_are_not_taken():
    decoder = Counting([4, 1])
    (found,) = mask_predict(decoder, *heard([(1, 0.5), (2, 0.99)]), threshold=0.9, lengths=True)
    assert found.tokens == (1, 2)


def test_a_token_beside_its_like_is_not_missing():
    # The posterior of 1 before and after its frame is that of 1 itself.
    log_probs, memory = heard([(0, 0.7, 1), (1, 0.99), (0, 0.7, 1), (0, 0.7, 2), (2, 0.99)])
    hypotheses = greedy_search(log_probs, memory.lengths)
    assert missing_tokens(log_probs, hypotheses, memory, 0.9) == [set()]
