"""Which utterances of a decoded set are shown, and what is known of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from plateau.config import UserError
from plateau.decoding.files import Interval
from plateau.decoding.scoring import ScoredUtterance


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
        words: when words are said: "true", "aligned", "heard", as far as known; "filled": of a text
            whose holes were filled, in which words that were given have no confidence.
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
