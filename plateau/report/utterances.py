"""Which utterances of a decoded set are shown, and what is known of them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from plateau.alignment.files import Interval
from plateau.config import UserError
from plateau.data.tokens import WORD_START
from plateau.decoding.scoring import ScoredUtterance, Scores, score


@dataclass(frozen=True)
class Shown:
    """An utterance of the report.

    Args:
        scored: its texts and errors.
        reasons: why it is shown, e.g. worst.
        samples: (S,) int16.
        sampling_rate: Hz.
        features: (T, F), log mel energies.
        log_probs: (T', V), the model's posteriors, or None.
        subsampling_factor: feature frames for each frame of these.
        tokens: of the hypothesis, when they are emitted.
        words: when words are said: "true", "aligned", "heard", as far as known.
    """

    scored: ScoredUtterance
    reasons: Sequence[str]
    samples: np.ndarray
    sampling_rate: int
    features: Tensor
    log_probs: Tensor | None
    subsampling_factor: int
    tokens: Sequence[Interval]
    words: Mapping[str, Sequence[Interval]]


def read_scores(decode_dir: Path) -> Scores:
    """The scores of a decode directory, from its ``ref.trn`` and ``hyp.trn``.

    Raises:
        UserError: nothing is decoded there.
    """
    return score(*(_read_trn(decode_dir / name) for name in ("ref.trn", "hyp.trn")))


def _read_trn(path: Path) -> dict[str, str]:
    """Texts by utterance, from lines ``<text> (<utterance>)``."""
    found = {}
    for number, line in enumerate(_lines(path, "./run.sh --stage 6"), start=1):
        match = re.fullmatch(r"(.*?)\s*\(([^()\s]+)\)", line)
        if match is None:
            raise UserError(f"{path}, line {number}: not of the form '<text> (<utterance>)'")
        found[match[2]] = match[1]
    return found


def read_ctm(path: Path, stage: int) -> dict[str, tuple[Interval, ...]]:
    """What `plateau.decoding.scoring.write_ctm` wrote: intervals by utterance, in order.

    Args:
        path: of the file.
        stage: of `run.sh` that makes it.

    Raises:
        UserError: no such file, or not a ctm.
    """
    found: dict[str, list[Interval]] = defaultdict(list)
    for number, line in enumerate(_lines(path, f"./run.sh --stage {stage}"), start=1):
        try:
            utterance, _, start, duration, label, *rest = line.split()
            confidence = float(rest[0]) if rest else None
            interval = Interval(float(start), float(start) + float(duration), label, confidence)
            found[utterance].append(interval)
        except ValueError:
            raise UserError(
                f"{path}, line {number}: not of the form '<utterance> 1 <start> <duration> <label>'"
            ) from None
    return {utterance: tuple(intervals) for utterance, intervals in found.items()}


def _lines(path: Path, made_by: str) -> list[str]:
    if not path.exists():
        raise UserError(f"{path}: no such file; make it with {made_by}")
    return path.read_text(encoding="utf-8").splitlines()


def choose(
    utterances: Iterable[ScoredUtterance], worst: int, median: int, named: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Ids of the utterances to show, each with the reasons: those named, the worst, the median.

    Utterances are ranked by word error rate, worst first; of equal ones, those with more errors
    come first, then those with more words, and then by id. What is on top without an error is not
    called worst, but long. The median is the middle of this ranking (for an even number the worse
    of two).

    Args:
        utterances: scored.
        worst: how many from the top.
        median: how many from the middle.
        named: ids.

    Raises:
        UserError: there is no utterance of a name.
    """

    def rank(u: ScoredUtterance) -> tuple[float, int, int, str]:
        return -u.words.rate, -u.words.total, -u.words.reference_length, u.id

    ranking = {u.id: u.words.total for u in sorted(utterances, key=rank)}
    ids = list(ranking)
    unknown = [name for name in named if name not in ranking]
    if unknown:
        raise UserError(f"no utterance {unknown[0]} among the {len(ids)} that are decoded")
    middle = max(0, (len(ids) - median) // 2)
    no_errors = not any(ranking.values())
    wanted = [
        *((id, "named") for id in dict.fromkeys(named)),
        *((id, "worst" if ranking[id] else "most words without an error") for id in ids[:worst]),
        *((id, "median length" if no_errors else "median") for id in ids[middle : middle + median]),
    ]
    reasons: dict[str, list[str]] = {}
    for id, reason in wanted:
        reasons.setdefault(id, []).append(reason)
    return reasons


def spelt_words(tokens: Sequence[Interval], marked: bool) -> list[Interval]:
    """The words that emitted tokens spell, from their first to their last token.

    Args:
        tokens: in order.
        marked: whether a word begins with ``▁``, as in subwords and characters; if not, each token
            is one. A lone ``▁`` belongs to no word: it comes somewhere in the pause before.
    """
    words: list[list[Interval]] = []
    for token in tokens:
        if not words or not marked or token.label.startswith(WORD_START):
            words.append([])
        label = token.label.removeprefix(WORD_START) if marked else token.label
        if label:
            words[-1].append(token._replace(label=label))
    return [
        Interval(word[0].start, word[-1].end, "".join(token.label for token in word))
        for word in words
        if word
    ]
