"""Texts with holes, as people write them: `THE ___ IS [?] THERE`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

MARKS = ("___", "[?]", "[inaudible]")


@dataclass(frozen=True)
class Piece:
    """What stands between white space: a word, or a hole with what is written right beside it.

    Args:
        before: of a word, all of it; of a hole, what stands before the mark, as ``(`` in ``(___)``
        mark: of the hole; "" of a word
        after: what stands after the mark
        space: white space before all this
    """

    before: str
    mark: str = ""
    after: str = ""
    space: str = ""

    @property
    def is_hole(self) -> bool:
        """Whether something is to be filled in."""
        return bool(self.mark)

    def filled(self, words: Sequence[str]) -> str:
        """The piece with words in the hole; as it is written, if it is none."""
        if not self.is_hole:
            return self.space + self.before
        return self.space + self.before + " ".join(words) + self.after


@dataclass(frozen=True)
class HoledText:
    """A text in pieces, which joined are the text to the last byte."""

    pieces: tuple[Piece, ...]
    end: str = ""  # white space

    def with_holes(self, places: Sequence[int]) -> "HoledText":
        """The same with these pieces as holes, and what was written there forgotten."""
        pieces = [
            Piece("", MARKS[0], "", piece.space) if n in set(places) else piece
            for n, piece in enumerate(self.pieces)
        ]
        return replace(self, pieces=tuple(pieces))

    def filled(self, words: Sequence[Sequence[str]]) -> str:
        """The text with words in its holes, of each hole a list; other text stays as it is."""
        rest = iter(words)
        return "".join(p.filled(next(rest) if p.is_hole else ()) for p in self.pieces) + self.end


def parse_holes(text: str, marks: Sequence[str] = MARKS) -> HoledText:
    """A text with its holes.

    Args:
        text: any.
        marks: what stands for a hole, in any case; ``_`` at the end of one may be there more often.
    """
    forms = [
        re.escape(mark) + ("_*" if mark.endswith("_") else "")
        for mark in sorted(marks, key=len, reverse=True)
    ]
    hole = re.compile("|".join(forms), re.IGNORECASE)
    pieces: list[Piece] = []
    rest = text
    for match in re.finditer(r"(\s*)(\S+)", text):
        space, word = match.groups()
        found = hole.search(word) if marks else None
        if found is None:
            pieces.append(Piece(word, space=space))
        else:
            pieces.append(Piece(word[: found.start()], found[0], word[found.end() :], space))
        rest = text[match.end() :]
    return HoledText(tuple(pieces), rest)
