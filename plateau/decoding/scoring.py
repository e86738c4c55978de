"""Word and character error rates, and the files that tell of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import kaldialign

from plateau.config import UserError
from plateau.io import write_text
from plateau.text import normalise

GAP = ""  # in an alignment: no word on this side; no word is empty

# What NIST sclite takes as markup in a transcript (alternatives, optional words, the empty word,
# comments) becomes the full-width form of the same character, which Unicode has at +0xFEE0.
_SCLITE_MARKUP = {ord(c): ord(c) + 0xFEE0 for c in "{}()@;"}


@dataclass(frozen=True)
class Errors:
    """Counts of edit operations that lead from references to hypotheses."""

    insertions: int
    deletions: int
    substitutions: int
    reference_length: int  # words or characters in the references

    @property
    def total(self) -> int:
        """Insertions, deletions and substitutions together."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Errors in percent of the reference; inf if errors meet an empty reference."""
        return _percent(self.total, self.reference_length)


@dataclass(frozen=True)
class ScoredUtterance:
    """One utterance, its texts as compared, and where they differ."""

    id: str
    reference: str
    hypothesis: str | None  # None: there was none, which counts as an empty one
    words: Errors
    characters: Errors
    alignment: tuple[tuple[str, str], ...]  # (reference word, hypothesis word), GAP for none


@dataclass(frozen=True)
class Scores:
    """Scores of a set of utterances, in the order of their ids."""

    utterances: tuple[ScoredUtterance, ...]

    @property
    def words(self) -> Errors:
        """Word errors of the set."""
        return _sum(utterance.words for utterance in self.utterances)

    @property
    def characters(self) -> Errors:
        """Character errors of the set."""
        return _sum(utterance.characters for utterance in self.utterances)

    @property
    def wer(self) -> float:
        """Word error rate, percent."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character error rate, percent."""
        return self.characters.rate

    @property
    def wrong_utterances(self) -> int:
        """Utterances with at least one word error."""
        return sum(utterance.words.total > 0 for utterance in self.utterances)

    @property
    def ser(self) -> float:
        """Sentence error rate, percent."""
        return _percent(self.wrong_utterances, len(self.utterances))

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids of references that have no hypothesis."""
        return tuple(u.id for u in self.utterances if u.hypothesis is None)


def score(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> Scores:
    """Compare hypotheses with references, both given by utterance id.

    Texts are normalised (`plateau.text.normalise`) and otherwise compared as they are, case and
    punctuation included. Errors are the Levenshtein distance, all operations costing 1, as in Kaldi
    (sclite weighs substitutions 4 and the others 3, which can give other counts). Characters are
    Unicode code points and spaces are not counted, as with ``sclite -c``: a wrong word boundary is
    an error of words. A reference without a hypothesis counts as deleted; see `Scores.missing`.

    Raises:
        UserError: a hypothesis has no reference.
    """
    strangers = sorted(hypotheses.keys() - references.keys())
    if strangers:
        raise UserError(
            f"{len(strangers)} hypotheses have no reference, the first is {strangers[0]}: "
            "were both made from the same set?"
        )
    return Scores(
        tuple(_score_utterance(id, references[id], hypotheses.get(id)) for id in sorted(references))
    )


def write_scores(directory: Path, scores: Scores) -> None:
    """Write ``ref.trn``, ``hyp.trn`` and ``wer.txt`` into a directory.

    The ``.trn`` are for NIST sclite: ``sclite -r ref.trn trn -h hyp.trn trn -i spu_id -e utf-8 -s``
    (``-s`` compares case; without ``-e`` bytes are characters). The characters ``{ } ( ) @ ;``,
    which sclite takes as markup, are written in their full-width forms.

    Raises:
        UserError: sclite could not read an utterance id.
    """
    for utterance in scores.utterances:
        if utterance.id != utterance.id.translate(_SCLITE_MARKUP):
            raise UserError(
                f"utterance id {utterance.id}: sclite allows none of {{ }} ( ) @ ; in it"
            )
    references = ((u.reference, u.id) for u in scores.utterances)
    hypotheses = ((u.hypothesis or "", u.id) for u in scores.utterances)
    write_text(Path(directory) / "ref.trn", _trn(references))
    write_text(Path(directory) / "hyp.trn", _trn(hypotheses))
    write_text(Path(directory) / "wer.txt", report(scores))


def report(scores: Scores) -> str:
    """Tell of scores: totals as Kaldi writes them, the utterances with errors, errors by word."""
    lines = [
        _total_line("WER", scores.words),
        _total_line("CER", scores.characters),
        f"%SER {scores.ser:.2f} [ {scores.wrong_utterances} / {len(scores.utterances)} ]",
    ]
    if scores.missing:
        lines += [
            "",
            f"# {len(scores.missing)} references have no hypothesis; their words count as deleted:",
            *scores.missing,
        ]
    wrong = sorted(
        (u for u in scores.utterances if u.words.total), key=lambda u: (-u.words.total, u.id)
    )
    lines += ["", "# Utterances, most errors first: id errors/words text (reference->hypothesis)"]
    lines += [
        f"{u.id} {u.words.total}/{u.words.reference_length} {_mark(u.alignment)}" for u in wrong
    ]
    pairs = Counter(pair for u in scores.utterances for pair in u.alignment)
    lines += ["", "# Substitutions: count reference->hypothesis"]
    lines += _ranked(pairs, lambda ref, hyp: GAP not in (ref, hyp) and ref != hyp, "{}->{}")
    lines += ["", "# Deletions: count word"]
    lines += _ranked(pairs, lambda ref, hyp: hyp == GAP, "{}")
    lines += ["", "# Insertions: count word"]
    lines += _ranked(pairs, lambda ref, hyp: ref == GAP, "{1}")
    lines += ["", "# Words: word errors correct in-reference in-hypothesis"]
    lines += _word_table(pairs)
    return "\n".join(lines) + "\n"


class CtmEntry(NamedTuple):
    """A token or word and when it was said."""

    utterance: str  # or recording
    start: float  # seconds from the start of the utterance
    duration: float  # seconds
    label: str
    confidence: float | None = None  # 0..1


def write_ctm(path: Path, entries: Iterable[CtmEntry]) -> None:
    """Write ``<utterance> 1 <start> <duration> <label> [confidence]``, by utterance and start.

    Raises:
        ValueError: a label is empty or holds white space, and would break its line.
    """
    lines = []
    for entry in sorted(entries, key=lambda entry: (entry.utterance, entry.start)):
        if len(entry.label.split()) != 1 or entry.label != entry.label.strip():
            raise ValueError(f"{entry.utterance}: {entry.label!r} cannot be a label in a ctm")
        line = f"{entry.utterance} 1 {entry.start:.3f} {entry.duration:.3f} {entry.label}"
        lines.append(line if entry.confidence is None else f"{line} {entry.confidence:.3f}")
    write_text(path, "".join(line + "\n" for line in lines))


def _percent(part: int, whole: int) -> float:
    if part == 0:
        return 0.0
    return 100 * part / whole if whole else float("inf")


def _sum(errors: Iterable[Errors]) -> Errors:
    counts = [(e.insertions, e.deletions, e.substitutions, e.reference_length) for e in errors]
    return (
        Errors(*(sum(column) for column in zip(*counts, strict=True)))
        if counts
        else _errors([], [])
    )


def _errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Errors:
    counts = kaldialign.edit_distance(reference, hypothesis)
    return Errors(counts["ins"], counts["del"], counts["sub"], len(reference))


def _score_utterance(id: str, reference: str, hypothesis: str | None) -> ScoredUtterance:
    reference = normalise(reference)
    hypothesis = None if hypothesis is None else normalise(hypothesis)
    words = reference.split(), (hypothesis or "").split()
    characters = ["".join(side) for side in words]
    return ScoredUtterance(
        id,
        reference,
        hypothesis,
        _errors(*words),
        _errors(*(list(side) for side in characters)),
        tuple(kaldialign.align(*words, GAP)),
    )


def _trn(texts: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{text.translate(_SCLITE_MARKUP)} ({id})\n" for text, id in texts)


def _total_line(name: str, errors: Errors) -> str:
    return (
        f"%{name} {errors.rate:.2f} [ {errors.total} / {errors.reference_length}, "
        f"{errors.insertions} ins, {errors.deletions} del, {errors.substitutions} sub ]"
    )


def _mark(alignment: Iterable[tuple[str, str]]) -> str:
    """The text with each error as ``(reference->hypothesis)``, ``*`` for no word."""
    return " ".join(
        ref if ref == hyp else f"({ref or '*'}->{hyp or '*'})" for ref, hyp in alignment
    )


def _ranked(
    pairs: Counter[tuple[str, str]], chosen: Callable[[str, str], bool], form: str
) -> list[str]:
    counts = [(count, pair) for pair, count in pairs.items() if chosen(*pair)]
    return [f"{count} {form.format(*pair)}" for count, pair in sorted(counts, key=_most_first)]


def _most_first(item: tuple[int, tuple[str, str]]) -> tuple[int, tuple[str, str]]:
    return -item[0], item[1]


def _word_table(pairs: Counter[tuple[str, str]]) -> list[str]:
    correct, in_reference, in_hypothesis = Counter(), Counter(), Counter()
    for (ref, hyp), count in pairs.items():
        in_reference[ref] += count
        in_hypothesis[hyp] += count
        if ref == hyp:
            correct[ref] += count
    rows = []
    for word in (in_reference.keys() | in_hypothesis.keys()) - {GAP}:
        errors = in_reference[word] + in_hypothesis[word] - 2 * correct[word]
        rows.append((-errors, word))
    return [
        f"{word} {-errors} {correct[word]} {in_reference[word]} {in_hypothesis[word]}"
        for errors, word in sorted(rows)
    ]
