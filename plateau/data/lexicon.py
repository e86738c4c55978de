"""Lexicons that people bring: pronunciation dictionaries of Kaldi, of MFA and the CMUdict.

A line is a word and its phones, parted by white space. Between them may stand a column of
probabilities (Kaldi's lexiconp.txt), or that and three more of silence (Kaldi's
lexiconp_silprob.txt, MFA's dictionaries).
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from plateau.config import UserError
from plateau.text import WORD_START, is_reserved, name_of, normalise, odd_characters, read_lines

COLUMNS = (1, 4)  # of numbers, in the forms that have them
# Of the lines, to be taken for columns: MFA's dictionaries have single words without.
MOST = 0.9
UNKNOWN = "<unk>"
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class _Entry:
    line: int
    word: str
    fields: list[str]  # numbers and phones

    @property
    def numbers(self) -> int:
        """How many numbers stand before what is none."""
        count = 0
        while count < len(self.fields) and _NUMBER.fullmatch(self.fields[count]):
            count += 1
        return count


def read_lexicon(path: Path) -> dict[str, list[str]]:
    """The phones of each word: of its pronunciations the most probable, of equal ones the first.

    Columns of numbers are told by the whole file, see the module; a word that has none among others
    that do has the probability 1, and that is printed. An entry `<unk>`, which all dictionaries of
    MFA have, is left out: what is not in the lexicon is the token `<unk>`.

    Raises:
        UserError: names file and line: a word without phones, a number elsewhere, a name that is
            reserved, a character that no line should have.
    """
    entries = _entries(path)
    counts = Counter(entry.numbers for entry in entries)
    columns = next((k for k in COLUMNS if counts[k] >= MOST * len(entries)), 0)
    lexicon: dict[str, list[str]] = {}
    best: dict[str, float] = {}
    without = []
    for entry in entries:
        where = f"{path}:{entry.line}"
        skip = columns if entry.numbers else 0
        if columns and not entry.numbers:
            without.append(entry)
        phones = entry.fields[skip:]
        if not phones:
            raise UserError(f"{where}: '{entry.word}' has no phones; add them")
        if number := next((p for p in phones if _NUMBER.fullmatch(p)), None):
            alike = sum(other.numbers == entry.numbers for other in entries)
            raise UserError(
                f"{where}: {number} stands where a phone should; {alike} of {len(entries)} lines "
                f"have {entry.numbers} number(s) after the word\n"
                "probabilities must be on all lines (1 number, or 4 with those of silence); phones "
                "cannot be numbers, write such a phone otherwise"
            )
        probability = float(entry.fields[0]) if skip else 1.0
        if not 0 <= probability <= 1:
            raise UserError(f"{where}: {entry.fields[0]} is not a probability, which is 0 to 1")
        if entry.word == UNKNOWN:
            continue
        for name in (entry.word, *phones):
            if is_reserved(name):
                raise UserError(
                    f"{where}: '{name}' is a name that tools use for something else; take the "
                    "line out, or write it otherwise"
                )
        if probability > best.get(entry.word, -1.0):
            best[entry.word], lexicon[entry.word] = probability, phones
    if not lexicon:
        raise UserError(f"{path}: no words; a line is a word and its phones")
    if without:
        first = without[0]
        print(
            f"note: {path}: {len(without)} of {len(entries)} lines have no probability, which is "
            f"then 1, e.g. line {first.line}: {first.word}"
        )
    return lexicon


def _entries(path: Path) -> list[_Entry]:
    entries = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(";;;"):  # a comment in CMUdict
            continue
        if odd := [c for c in odd_characters(line) if not c.isspace()]:
            what = "which sentencepiece uses itself; " if odd[0] == WORD_START else ""
            raise UserError(f"{path}:{number}: has {name_of(odd[0])}, {what}take it out")
        fields = normalise(line).split()
        if fields:
            entries.append(_Entry(number, fields[0], fields[1:]))
    return entries
