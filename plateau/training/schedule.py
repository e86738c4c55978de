"""Learning rates over time."""

import math
from dataclasses import dataclass
from typing import Literal

from plateau.ranges import COUNT, above, check_options


@dataclass(frozen=True)
class ScheduleOptions:
    """The learning rate over time.

    Args:
        kind: cosine goes to zero at the end of the last epoch (Loshchilov & Hutter 2017); noam
            falls with one over the square root of the step (Vaswani et al. 2017, eq. 3)
        peak: the highest learning rate, reached at the end of the warm-up
        warmup_steps: steps over which it rises linearly from zero
    """

    kind: Literal["cosine", "noam"] = "cosine"
    peak: float = 2e-3
    warmup_steps: int = 200

    def __post_init__(self) -> None:
        check_options(self, "training.schedule", peak=above(0, 100), warmup_steps=COUNT)


def late(after_steps: int, warm_up_steps: int, steps: int) -> list[str]:
    """A note if a loss has not all of its weight when a training of so many steps ends."""
    if after_steps + warm_up_steps <= steps:
        return []
    return [
        f"loss.after_steps is {after_steps} and loss.warm_up_steps {warm_up_steps}, and the "
        f"training has {steps} steps: it ends before all of the loss counts"
    ]


def learning_rate(options: ScheduleOptions, step: int, progress: float) -> float:
    """The learning rate of a step.

    Args:
        options: see `ScheduleOptions`
        step: steps done so far, this one included, from 1
        progress: share of the whole training that is done, from 0 to 1
    """
    warmup = max(options.warmup_steps, 1)
    rise = min(step / warmup, 1.0)
    if options.kind == "noam":
        return options.peak * min(rise, math.sqrt(warmup / step))
    return options.peak * rise * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
