"""Masks that stand for some tokens, or for none: how many, a decoder is asked.

Where CTC is not sure, it may have left out a token, or heard one too many. A run of masks becomes
one mask, and where a token may be missing there is one more: "dynamic length prediction" of Higuchi
et al. 2021, "Improved Mask-CTC" (arXiv 2010.13270), section 3.2.
"""

import random
from collections.abc import Collection, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

INSERTED = 0.1  # share of the places between tokens that get a mask while training


class Piece(NamedTuple):
    """A token or a mask, and how many tokens of the text it stands for: a token for one."""

    token: int
    size: int


def in_pieces(
    tokens: Sequence[int], mask: int, longest: int, missing: Collection[int]
) -> list[Piece]:
    """A text whose runs of masks are pieces of at most so many tokens, of sizes as equal as can be.

    Args:
        tokens: some of them masks.
        mask: the token that is a mask.
        longest: tokens of a piece.
        missing: where a token may be missing: after how many tokens. There is a mask for it, where
            none is beside it.
    """
    pieces: list[Piece] = []
    place = 0  # tokens so far

    def may_be_missing() -> None:
        beside = tokens[max(place - 1, 0) : place + 1]
        if place in missing and mask not in beside:
            pieces.append(Piece(mask, 0))

    may_be_missing()
    for masked, run in groupby(tokens, key=mask.__eq__):
        run = list(run)
        if masked:
            number = -(-len(run) // longest)
            ends = [len(run) * n // number for n in range(number + 1)]
            pieces += [Piece(mask, b - a) for a, b in pairwise(ends)]
            place += len(run)
            continue
        for token in run:
            pieces.append(Piece(token, 1))
            place += 1
            may_be_missing()
    return pieces


def draw_pieces(
    tokens: Sequence[int], mask: int, longest: int, generator: random.Random
) -> list[Piece]:
    """A text for training: runs of masks are cut at random, and some masks stand for nothing."""
    missing = {place for place in range(len(tokens) + 1) if generator.random() < INSERTED}
    pieces: list[Piece] = []
    for piece in in_pieces(tokens, mask, len(tokens) or 1, missing):
        size = piece.size
        while piece.token == mask and size > 0:
            drawn = min(size, generator.randint(1, longest))
            pieces.append(Piece(mask, drawn))
            size -= drawn
        if piece.token != mask or not piece.size:
            pieces.append(piece)
    return pieces


def piece_places(pieces: Sequence[Piece], places: Sequence[int]) -> list[int]:
    """Which piece each frame is of, from 0; -1 before the first.

    A mask that stands for no token has the second half of the frames of the token before it: there
    is what was left out, if anything was.

    Args:
        pieces: of a text.
        places: of each frame, which token of the text it is of; -1 before the first. They do not
            fall.
    """
    of_token, lent = [-1], {}
    for number, piece in enumerate(pieces):
        if piece.size == 0:
            lent[len(of_token) - 2] = number
        of_token += [number] * piece.size
    found: list[int] = []
    for place, run in groupby(places):
        frames = len(list(run))
        own = of_token[min(place + 1, len(of_token) - 1)]
        kept = -(-frames // 2) if place in lent else frames
        found += [own] * kept + [lent.get(place, own)] * (frames - kept)
    return found


def expand(
    pieces: Sequence[Piece], mask: int, sizes: Sequence[int], places: Sequence[int]
) -> tuple[list[int], list[int]]:
    """A text with so many masks for each mask, and the token of it that each frame is of.

    The frames of a mask are shared out among its tokens; of one that stands for none, they are the
    token's before it.

    Args:
        pieces: of a text.
        mask: the token that is a mask.
        sizes: tokens of each piece; those of masks count.
        places: which piece each frame is of, from `piece_places`.
    """
    tokens: list[int] = []
    spans = []  # of each piece: its first token, and how many there are
    for (token, _), size in zip(pieces, sizes, strict=True):
        spans.append((len(tokens), size if token == mask else 1))
        tokens += [token] * spans[-1][1]
    found: list[int] = []
    for number, run in groupby(places):
        frames = len(list(run))
        first, count = spans[number] if number >= 0 else (0, 0)
        of_frames = range(frames)
        found += [first + i * count // frames if count else first - 1 for i in of_frames]
    return tokens, found
