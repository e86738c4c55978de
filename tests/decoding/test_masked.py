"""With decoders whose answers are known."""

import math

import pytest
import torch

from plateau.decoding.ctc import Hypothesis
from plateau.decoding.masked import fill_masks, mask_predict
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


def hypothesis(tokens, probs):
    frames = tuple(range(len(tokens)))
    return Hypothesis(tuple(tokens), frames, tuple(map(math.log, probs)), -9.0)


def test_tokens_of_a_low_posterior_are_found_anew():
    given = [hypothesis([4, 4, 4], [0.99, 0.5, 0.95]), hypothesis([3], [0.2]), hypothesis([], [])]
    decoder = Table(PROBS)
    found = mask_predict(decoder, given, NOTHING.of(torch.zeros(3).long()), threshold=0.9, rounds=1)
    assert [h.tokens for h in found] == [(4, 2, 4), (1,), ()]
    assert [h.frames for h in found] == [h.frames for h in given]
    probs = [[math.exp(x) for x in h.log_posteriors] for h in found]
    assert probs == [pytest.approx([0.99, 0.9, 0.95]), pytest.approx([0.7]), []]
    assert found[0].score == pytest.approx(sum(found[0].log_posteriors))
    assert decoder.given[0][0] == [4, MASK, 4]


def test_where_all_is_sure_nothing_changes():
    given = [hypothesis([4, 3], [0.99, 0.95])]
    assert mask_predict(Table(PROBS), given, NOTHING, threshold=0.9) == given
