"""Which tokens of a transcript a model is not told, and must find.

Masked language models for speech: Higuchi et al. 2020, "Mask CTC" (arXiv 2005.08700), after
Ghazvininejad et al. 2019, "Mask-Predict" (arXiv 1904.09324).
"""

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plateau.ranges import COUNT, SHARE, Range, check_options


@dataclass(frozen=True)
class MaskShareOptions:
    """How much of a transcript is masked while training.

    Args:
        schedule: uniform: a share from 0 to 1, drawn for each utterance. fixed: always `share`.
            decreasing: it falls from 1 to `share` over `steps` steps, and stays
        share: of the units, for fixed and decreasing
        steps: of decreasing
        full: share of the utterances of which all is masked, whatever the schedule: how recognition
            begins
    """

    schedule: Literal["uniform", "fixed", "decreasing"] = "uniform"
    share: float = 0.5
    steps: int = 2000
    full: float = 0.2

    def __post_init__(self) -> None:
        self.check()

    def check(self, **ranges: Range) -> None:
        """See that all fields have values that make sense; ``ranges`` are those of further ones.

        Raises:
            UserError: names field, value and range.
        """
        check_options(self, "masking", share=SHARE, steps=COUNT, full=SHARE, **ranges)

    def check_steps(self, steps: int) -> list[str]:
        """What of the schedule comes after a training of so many steps."""
        if self.schedule == "decreasing" and self.steps > steps:
            return [
                f"masking.steps is {self.steps}, and the training has {steps} steps: the share "
                f"that is masked ends at {self._share_at(steps):.2f}"
            ]
        return []

    def draw_share(self, step: int, generator: random.Random) -> float:
        """The share of an utterance's units that is masked, at a step of training."""
        if generator.random() < self.full:
            return 1.0
        return generator.random() if self.schedule == "uniform" else self._share_at(step)

    def _share_at(self, step: int) -> float:
        if self.schedule == "fixed" or not self.steps:
            return self.share
        return 1.0 - (1.0 - self.share) * min(1.0, step / self.steps)


@dataclass(frozen=True)
class MaskingOptions(MaskShareOptions):
    """What is masked, and what else is made hard; see `MaskShareOptions` too.

    Args:
        unit: what is masked at a time: token; word, as in a text with holes; both: for each
            utterance one or the other
        silent: share of the utterances whose audio the decoder does not hear; what it knows of the
            text alone is learnt there
        guessed: share of the utterances whose masks are filled with what the model says first, and
            are then to be found once more: so it learns to mend its own mistakes
    """

    unit: Literal["token", "word", "both"] = "both"
    silent: float = 0.1
    guessed: float = 0.0

    def __post_init__(self) -> None:
        self.check(silent=SHARE, guessed=SHARE)


def masked_positions(
    words: Sequence[Sequence[int]], share: float, unit: str, generator: random.Random
) -> list[int]:
    """Places of the tokens that are masked, in order; one unit at least, if there is one.

    Units are drawn without replacement, so that as many are masked as the share says: rounded.

    Args:
        words: the tokens of each word.
        share: of the units, 0 to 1.
        unit: token, word, or both.
        generator: of the draws.
    """
    if unit == "both":
        unit = generator.choice(("token", "word"))
    places, units = iter(range(sum(map(len, words)))), []
    for word in words:
        of_word = [next(places) for _ in word]
        if of_word:
            units += [of_word] if unit == "word" else [[place] for place in of_word]
    number = min(len(units), max(1, round(share * len(units))))
    return sorted(place for drawn in generator.sample(units, number) for place in drawn)


def generator_for(id: str, *, purpose: str = "") -> random.Random:
    """The same draws for an utterance each time, whatever else is in its batch."""
    return random.Random(zlib.crc32(f"{purpose}/{id}".encode()))
