"""Pieces of texts against what can be counted by hand or tried one by one."""

import random

from hypothesis import given
from hypothesis import strategies as st

from plateau.data.pieces import Piece, draw_pieces, expand, in_pieces, piece_places

MASK = 9
TEXTS = st.lists(st.sampled_from([1, 2, MASK]), max_size=12)


def test_runs_of_masks_and_what_may_be_missing():
    text = [1, MASK, MASK, MASK, MASK, MASK, 2, 1]
    pieces = in_pieces(text, MASK, 2, {0, 1, 3, 7, 8})
    # After one token there is a mask already, as there is amid the run.
    assert pieces == [
        *[(MASK, 0), (1, 1), (MASK, 1), (MASK, 2), (MASK, 2)],
        *[(2, 1), (MASK, 0), (1, 1), (MASK, 0)],
    ]


@given(TEXTS, st.integers(1, 5), st.integers())
def test_drawn_pieces_are_the_text(text, longest, seed):
    pieces = draw_pieces(text, MASK, longest, random.Random(seed))
    assert [token for token, size in pieces for _ in range(size)] == text
    assert all(size <= longest if token == MASK else size == 1 for token, size in pieces)
    inserted = [n for n, piece in enumerate(pieces) if piece.size == 0]
    for n in inserted:
        assert all(
            piece.token != MASK for piece in (*pieces[max(n - 1, 0) : n], *pieces[n + 1 : n + 2])
        )


def test_some_masks_stand_for_nothing():
    pieces = draw_pieces([1] * 10000, MASK, 4, random.Random(0))
    assert 800 < sum(piece == (MASK, 0) for piece in pieces) < 1200


def test_frames_of_pieces():
    pieces = [Piece(MASK, 0), Piece(1, 1), Piece(MASK, 2), Piece(2, 1), Piece(MASK, 0)]
    places = [-1, -1, -1, 0, 0, 1, 2, 2, 3, 3, 3]
    assert piece_places(pieces, places) == [-1, -1, 0, 1, 1, 2, 2, 2, 3, 3, 4]
    assert piece_places([], [-1, -1]) == [-1, -1]


@given(
    TEXTS, st.integers(1, 5), st.integers(), st.lists(st.integers(1, 4), min_size=13, max_size=13)
)
def test_with_the_true_sizes_a_text_is_what_it_was(text, longest, seed, durations):
    pieces = draw_pieces(text, MASK, longest, random.Random(seed))
    places = [u - 1 for u in range(len(text) + 1) for _ in range(durations[u])]
    of_pieces = piece_places(pieces, places)
    assert of_pieces == sorted(of_pieces)
    tokens, found = expand(pieces, MASK, [piece.size for piece in pieces], of_pieces)
    assert tokens == text
    assert len(found) == len(places) and found == sorted(found)
    # Frames stay within their piece; where that is a token, they stay with it.
    sizes = [size for _, size in pieces for _ in range(size)]
    ends = [0, *(sum(size for _, size in pieces[:n]) for n in range(1, len(pieces) + 1))]
    for place, piece, new in zip(places, of_pieces, found, strict=True):
        if piece < 0 or pieces[piece].size == 0:
            assert new == (ends[piece] - 1 if piece >= 0 else -1)
        elif sizes[place] == 1:
            assert new == place


def test_other_sizes():
    pieces = [Piece(1, 1), Piece(MASK, 2), Piece(MASK, 0), Piece(2, 1)]
    tokens, places = expand(pieces, MASK, [0, 3, 1, 0], [-1, 0, 1, 1, 1, 1, 2, 3])
    assert tokens == [1, MASK, MASK, MASK, MASK, 2]
    assert places == [-1, 0, 1, 1, 2, 3, 4, 5]
    tokens, places = expand(pieces, MASK, [0, 0, 0, 0], [-1, 0, 1, 1, 1, 1, 2, 3])
    assert (tokens, places) == ([1, 2], [-1, 0, 0, 0, 0, 0, 0, 1])
