"""What the checks of the catalogue measure, and how they say it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean, median

import numpy as np

from toy_peaky.training import Result

# The notes call 90 % of all frames for one label peaky, and 69 % not; likewise with sharp.
PEAKY = SHARP = 0.9

# The inputs of the notes and the paper.
EVEN = "3x10 0x25 1x25 3x5 2x25 3x10"  # 100 frames, 25 of each label, 3 is blank
UNEVEN = "3x20 0x15 1x10 3x10 2x20 3x25"  # 100 frames: 15, 10, 20, and 55 of blank


def centred(n: int) -> str:
    """The paper's input for one label: n frames of blank, 2 n of label 0, n of blank."""
    return f"1x{n} 0x{2 * n} 1x{n}"


def only(results: Mapping[str, list[Result]]) -> Result:
    """The result of one setup with one seed."""
    ((result,),) = results.values()
    return result


def is_peaky(result: Result) -> bool:
    """One label has nearly all the time."""
    return result.peakiness >= PEAKY


def is_sharp(result: Result) -> bool:
    """Within a frame, the model is nearly sure of one label."""
    return result.sharpness >= SHARP


def blank_share(result: Result) -> float:
    """Share of time of blank, by the posteriors."""
    return result.avg_softmax[-1]


def histogram(runs: Sequence[Result]) -> np.ndarray:
    """Runs by blank's share of time, in 20 bins of 5 %."""
    return np.histogram([blank_share(run) for run in runs], bins=20, range=(0, 1))[0]


def share_of_runs(runs: Sequence[Result], low: float, high: float = 1.0) -> float:
    """Share of runs whose share of blank is in low … high."""
    return mean(low <= blank_share(run) <= high for run in runs)


def agreement(runs: Sequence[Result]) -> float:
    """How far runs agree on the best alignment: mean over frames of the commonest label's share."""
    paths = zip(*(run.viterbi for run in runs), strict=True)
    return mean(max(Counter(labels).values()) / len(runs) for labels in paths)


def frame_error(runs: Sequence[Result]) -> float:
    """Mean share of frames where the best alignment is not the ground truth."""
    return mean(run.fer_viterbi_to_ref for run in runs)


def percent(x: float) -> str:
    """0.123 as '12 %', small values with a digit more."""
    return f"{100 * x:.0f} %" if x >= 0.1 or x == 0 else f"{100 * x:.1f} %"


def by_name(values: Mapping[str, float]) -> str:
    """Percentages of setups: 'sum: 50 %, max: 12 %'."""
    return ", ".join(f"{name}: {percent(value)}" for name, value in values.items())


def width(runs: Sequence[Result]) -> float:
    """How far apart runs are in blank's share of time."""
    values = [blank_share(run) for run in runs]
    return max(values) - min(values)


def shares(result: Result) -> str:
    """Share of time of each label: '0: 5 %, blank: 95 %'."""
    names = [*map(str, range(len(result.avg_softmax) - 1)), "blank"]
    pairs = zip(names, result.avg_softmax, strict=True)
    return ", ".join(f"{name}: {percent(share)}" for name, share in pairs)


def spread(runs: Sequence[Result]) -> str:
    """Blank's share of time over runs: smallest, median, largest."""
    values = [blank_share(run) for run in runs]
    return f"blank {percent(min(values))} … {percent(median(values))} … {percent(max(values))}"


def final_loss(runs: Sequence[Result]) -> float:
    """Median of the last losses, nats."""
    return median(run.loss[-1] for run in runs)
