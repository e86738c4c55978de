"""Writers, and how they write a line of text."""

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from HersheyFonts import HersheyFonts

from plateau.data.strokes import resample

# The fonts of single strokes; futural has the letters of rowmans, and cursive those of scripts.
FONTS = ("rowmans", "scripts")
TOUCHING = 4.0  # as near as this to its end, in units of a font, a stroke goes on from another


@dataclass(frozen=True)
class Writer:
    """How somebody writes; lengths are in units of the fonts, whose capitals are 21 high.

    Args:
        name: of the writer
        font: one of `FONTS`
        slant: dx for each dy, to the right
        size: factor
        width: factor of the width, beside that
        speed: way of the pen between two points
        jitter: standard deviation of the points' distance from where they should be
        wander: how far the line of writing goes up and down
        lifts: share of the places where strokes touch in which the pen is lifted
    """

    name: str
    font: str
    slant: float
    size: float
    width: float
    speed: float
    jitter: float
    wander: float
    lifts: float


def make_writer(name: str, seed: int) -> Writer:
    """The writer of this name, always the same with this seed."""
    rng = random.Random(f"{seed} {name}")
    return Writer(
        name,
        font=rng.choice(FONTS),
        slant=rng.uniform(-0.15, 0.45),
        size=rng.uniform(0.85, 1.15),
        width=rng.uniform(0.85, 1.15),
        speed=rng.uniform(3.4, 4.6),
        jitter=rng.uniform(0.1, 0.4),
        wander=rng.uniform(0, 1.5),
        lifts=rng.uniform(0, 1),
    )


def write_line(text: str, writer: Writer, rng: random.Random) -> list[np.ndarray]:
    """Write a line of text: the strokes, (T_i, 2) each, y upwards."""
    noise = np.random.default_rng(rng.getrandbits(64))
    phase, period = rng.uniform(0, 2 * np.pi), rng.uniform(100, 300)
    written = []
    for stroke in _joined(_strokes(text, writer.font), writer.lifts, rng):
        x, y = stroke.T
        y = y + writer.wander * np.sin(phase + 2 * np.pi * x / period)
        line = writer.size * np.column_stack([writer.width * x + writer.slant * y, y])
        points = resample(line, writer.speed)
        written.append(points + writer.jitter * _smooth(noise, len(points)))
    return written


def _strokes(text: str, font: str) -> list[np.ndarray]:
    strokes = [np.array(s, dtype=float) for s in _font(font).strokes_for_text(text)]
    return [stroke * (1, -1) for stroke in strokes]  # y is downwards in these fonts


@cache
def _font(name: str) -> HersheyFonts:
    return HersheyFonts(load_default_font=name)


def _joined(strokes: list[np.ndarray], lifts: float, rng: random.Random) -> list[np.ndarray]:
    """The strokes, some of them one where the pen can stay on the paper."""
    joined = strokes[:1]
    for stroke in strokes[1:]:
        if _can_go_on(joined[-1], stroke) and rng.random() >= lifts:
            joined[-1] = np.concatenate([joined[-1], stroke])
        else:
            joined.append(stroke)
    return joined


def _can_go_on(stroke: np.ndarray, following: np.ndarray) -> bool:
    """Whether the way to the start of the following stroke is short, or back along this one."""
    to_end = stroke[-1] - stroke[-2]
    to_start = following[0] - stroke[-2]
    share = np.clip(to_start @ to_end / (to_end @ to_end), 0, 1)
    off = np.hypot(*(to_start - share * to_end))  # the last straight part
    return off <= 1 or np.hypot(*(following[0] - stroke[-1])) <= TOUCHING


def _smooth(noise: np.random.Generator, length: int) -> np.ndarray:
    """Noise of variance 1 in which neighbours are alike, (length, 2)."""
    kernel = np.array([1, 2, 1]) / np.sqrt(6)
    white = noise.standard_normal((length + 2, 2))
    return np.column_stack([np.convolve(column, kernel, "valid") for column in white.T])
