"""Word and character error rates, and the files that tell of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import kaldialign

from plateau.config import UserError
from plateau.decoding.files import for_sclite, read_trn, write_trn
from plateau.io import write_text
from plateau.text import normalise

GAP = ""  # in an alignment: no word on this side; no word is empty


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
    """Write ``ref.trn``, ``hyp.trn`` and ``wer.txt`` into a directory."""
    directory = Path(directory)
    write_trn(directory / "ref.trn", {u.id: u.reference for u in scores.utterances})
    write_trn(directory / "hyp.trn", {u.id: u.hypothesis or "" for u in scores.utterances})
    write_text(directory / "wer.txt", report(scores))


def read_scores(directory: Path, ids: Iterable[str] = ()) -> Scores:
    """The scores of a decode directory, from its ``ref.trn`` and ``hyp.trn``.

    Args:
        directory: that `write_scores` wrote to.
        ids: of the set; those that sclite could not read are written in another form.

    Raises:
        UserError: nothing is decoded there.
    """
    names = {for_sclite(id): id for id in ids}
    references, hypotheses = (
        {names.get(id, id): text for id, text in read_trn(Path(directory) / name).items()}
        for name in ("ref.trn", "hyp.trn")
    )
    try:
        return score(references, hypotheses)
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None


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
