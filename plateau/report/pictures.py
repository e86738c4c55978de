"""Pictures as inline SVG, which takes the page's colours, and spectrograms as PNG."""

import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape

import numpy as np
from lhotse import FbankConfig
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageFont
from torch import Tensor

from plateau.data.features import FRAME_SHIFT, frame_times
from plateau.data.tokens import BLANK_ID
from plateau.decoding.files import Interval
from plateau.report.page import NUM_COLOURS

PIXELS_PER_SECOND = 360
POSTERIORS = 120  # height, pixels
LABELS = 18  # above it, for a row of the tokens that are heard
LONGEST = 24  # characters of a token that are drawn
LEAST = 0.05  # smaller posteriors are not drawn
TICK = 0.1  # seconds, on the axis of time
FONT = 12  # pixels
CHART = (400, 250)  # pixels
MARGIN = (30, 12, 34, 40)  # of a chart: left (with the widest number more), right, top, bottom


def spectrogram(features: Tensor) -> bytes:
    """A PNG with a pixel for each frame and mel bin of log energies (T, F); loud is black."""
    energies = features.float().cpu().numpy().T[::-1]  # (F, T), low frequencies below
    soft, loud = np.percentile(energies, (5, 99.8))
    grey = 255 * np.clip((loud - energies) / max(loud - soft, 1e-6), 0, 1)
    file = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(file, "png", optimize=True)
    return file.getvalue()


def text_width(text: str) -> float:
    """Pixels that a text takes at most, or nearly so, in the bold of a browser's font.

    That is its width in DejaVu Sans, which is wider than what most systems have.
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return max(_font().getlength(text), FONT * wide)


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold")), FONT)


def rows(boxes: Sequence[tuple[float, float]]) -> list[int]:
    """A row for each box, from 0, so that none overlaps another in its row.

    Args:
        boxes: left and right edges; each goes to the first row where it is right of all before it.
    """
    ends: list[float] = []
    found = []
    for left, right in boxes:
        row = next((row for row, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [right]
        found.append(row)
    return found


def posteriors(
    log_probs: Tensor | None,
    heard: Sequence[Interval],
    tokens: Sequence[str],
    subsampling_factor: int,
    seconds: float,
) -> str:
    """Posteriors over time, and above them the tokens of the hypothesis where they are emitted.

    Tokens that have no place side by side stand in rows, each with a line down to its time.

    Args:
        log_probs: (T', V), natural; blank is 0. None: only the tokens are drawn.
        heard: tokens of the hypothesis.
        tokens: names of the labels.
        subsampling_factor: feature frames for each frame of ``log_probs``.
        seconds: what is drawn, from 0 on.
    """
    width = round(seconds * PIXELS_PER_SECOND)
    heard = [token for token in heard if token.start < seconds]
    texts = [t.label if len(t.label) <= LONGEST else f"{t.label[: LONGEST - 1]}…" for t in heard]
    times = [(token.start + token.end) / 2 * PIXELS_PER_SECOND for token in heard]
    boxes = []
    for text, x in zip(texts, times, strict=True):
        half = text_width(text) / 2 + 2
        left = max(0.0, min(x - half, width - 2 * half))
        boxes.append((left, left + 2 * half))
    in_rows = rows(boxes)
    top = LABELS * max([row + 1 for row in in_rows], default=1)
    height = top + (0 if log_probs is None else POSTERIORS)
    lines = [f'<svg class="posteriors" width="{width}" height="{height}" aria-hidden="true">']
    if log_probs is not None:
        probs = log_probs.exp().cpu().numpy()  # (T', V)
        edges = [frame_times(t, subsampling_factor)[0] for t in range(len(probs))]
        edges.append(frame_times(len(probs) - 1, subsampling_factor)[1])
        for label in np.flatnonzero(probs.max(0) >= LEAST):  # blank first: the others lie on it
            fill = 0.12 if label == BLANK_ID else 0.35
            lines.append(
                f'<path d="{_steps(probs[:, label], edges, top)}" style="{_colour(label)}" '
                f'fill-opacity="{fill}"><title>{escape(tokens[label])}</title></path>'
            )
    labels = {token: label for label, token in enumerate(tokens)}
    baselines = [top - LABELS * row - 5 for row in in_rows]
    for token, x, y in zip(heard, times, baselines, strict=True):
        colour = _colour(labels.get(token.label, BLANK_ID))
        lines.append(f'<path class="stem" d="M{x:.1f} {y + 2}V{top}" style="{colour}"/>')
    for token, text, box, y in zip(heard, texts, boxes, baselines, strict=True):
        lines.append(
            f'<text x="{sum(box) / 2:.1f}" y="{y}">{escape(text)}'
            f"<title>{escape(token.label)}, {token.start:.3f} s</title></text>"
        )
    return "\n".join([*lines, "</svg>"])


def time_axis(seconds: float) -> str:
    """Ticks with seconds, in the scale of `posteriors`."""
    width = round(seconds * PIXELS_PER_SECOND)
    lines = [f'<svg class="axis" width="{width}" height="22" aria-hidden="true">']
    for tick in range(int(seconds / TICK + 1e-6) + 1):
        x = tick * TICK * PIXELS_PER_SECOND
        numbered = tick % 5 == 0
        lines.append(f'<path d="M{x:.1f} 0v{6 if numbered else 3}"/>')
        if numbered:
            text = f"{tick * TICK:.1f} s"
            half = text_width(text) / 2
            middle = max(half, min(x, width - half))  # whole at both ends
            lines.append(f'<text x="{middle:.1f}" y="18" text-anchor="middle">{text}</text>')
    return "\n".join([*lines, "</svg>"])


def chart(name: str, unit: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves over epochs, with their names above.

    Args:
        name: what is drawn.
        unit: of its values, for the axis.
        curves: by name, points (epoch, value); those that are not finite are left out.
    """
    finite = {
        key: [(x, y) for x, y in points if math.isfinite(y)] for key, points in curves.items()
    }
    points = [point for each in finite.values() for point in each]
    if not points:
        return ""
    last = max(2.0, max(x for x, _ in points))
    lowest, highest = min(0.0, min(y for _, y in points)), max(y for _, y in points)
    if highest == lowest:
        highest += 1
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(lowest, highest)
    lowest, highest = ticks[0], ticks[-1]
    (left, right, top, bottom), (width, height) = MARGIN, CHART
    left += round(max(text_width(f"{tick:g}") for tick in ticks))

    def x_of(epoch: float) -> float:
        return left + (epoch - 1) / (last - 1) * (width - left - right)

    def y_of(value: float) -> float:
        return height - bottom - (value - lowest) / (highest - lowest) * (height - top - bottom)

    lines = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(name)}, {escape(unit)}, after each epoch">'
    ]
    for tick in ticks:
        y = y_of(tick)
        kind = "grid zero" if tick == 0 else "grid"
        lines.append(f'<path class="{kind}" d="M{left} {y:.1f}H{width - right}"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in MaxNLocator(8, integer=True).tick_values(1, last):
        if 1 <= tick <= last:
            text = f'<text x="{x_of(tick):.1f}" y="{height - bottom + 16}" text-anchor="middle">'
            lines.append(f"{text}{tick:g}</text>")
    middle_x, middle_y = (left + width - right) / 2, (top + height - bottom) / 2
    lines.append(f'<text x="{middle_x:.1f}" y="{height - 6}" text-anchor="middle">epoch</text>')
    lines.append(
        f'<text transform="translate(12 {middle_y:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(unit)}</text>"
    )
    key_x = float(left)
    for number, (key, each) in enumerate(finite.items()):
        if not each:
            continue
        style = f'style="{_curve_colour(number)}"' + (' stroke-dasharray="6 3"' if number else "")
        drawn = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in each)
        lines.append(f'<polyline points="{drawn}" {style}/>')
        lines += [
            f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" style="{_curve_colour(number)}">'
            f"<title>{escape(key)} {y:.4g}, epoch {x:g}</title></circle>"
            for x, y in each
        ]
        lines.append(f'<path class="key" d="M{key_x:.1f} 12h24" {style}/>')
        lines.append(f'<text class="key" x="{key_x + 30:.1f}" y="16">{escape(key)}</text>')
        key_x += 30 + text_width(key) + 16
    return "\n".join([*lines, "</svg>"])


def bars(name: str, unit: str, values: Sequence[float]) -> str:
    """A bar for each value, from left to right; none may be below 0.

    Args:
        name: what the values are of, for the horizontal axis.
        unit: of the values.
        values: at least one.
    """
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, max([*values, 1e-6]))
    (left, right, _, bottom), (width, height), top = MARGIN, CHART, 12
    left += round(max(text_width(f"{tick:g}") for tick in ticks))
    across, up = (width - left - right) / len(values), (height - top - bottom) / ticks[-1]
    lines = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(name)}, {escape(unit)}">'
    ]
    for tick in ticks:
        y = height - bottom - tick * up
        lines.append(f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number, value in enumerate(values):
        lines.append(
            f'<rect x="{left + (number + 0.1) * across:.2f}" width="{0.8 * across:.2f}" '
            f'y="{height - bottom - value * up:.2f}" height="{value * up:.2f}" '
            f'fill="currentColor" style="{_curve_colour(0)}"><title>{value:.4g}</title></rect>'
        )
    middle_x, middle_y = (left + width - right) / 2, (top + height - bottom) / 2
    lines.append(
        f'<text x="{middle_x:.1f}" y="{height - 6}" text-anchor="middle">{escape(name)}</text>'
    )
    lines.append(
        f'<text transform="translate(12 {middle_y:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(unit)}</text>"
    )
    return "\n".join([*lines, "</svg>"])


def mel_range(sampling_rate: int) -> tuple[float, float]:
    """The lowest and the highest frequency of the mel bins, Hz."""
    config = FbankConfig()  # as of `plateau.data.features.make_extractor`
    return config.low_freq, sampling_rate / 2 + config.high_freq


def image_width(features: Tensor) -> int:
    """Width of the spectrogram of features (T, F) in the scale of `posteriors`, pixels."""
    return round(len(features) * FRAME_SHIFT * PIXELS_PER_SECOND)


def _colour(label: int) -> str:
    return "color:var(--blank)" if label == BLANK_ID else _curve_colour(label)


def _curve_colour(number: int) -> str:
    return f"color:var(--c{number % NUM_COLOURS})"


def _steps(probs: np.ndarray, edges: Sequence[float], top: int) -> str:
    """A path under probabilities (T',): a block for each stretch of frames that are not small."""
    path = []
    drawn = False
    for t, p in enumerate(probs):
        x, y = edges[t] * PIXELS_PER_SECOND, top + POSTERIORS * (1 - p)
        if p < LEAST:
            if drawn:
                path.append(f"V{top + POSTERIORS}Z")
        else:
            path.append("" if drawn else f"M{x:.1f} {top + POSTERIORS}")
            path.append(f"V{y:.1f}H{edges[t + 1] * PIXELS_PER_SECOND:.1f}")
        drawn = p >= LEAST
    return "".join(path) + (f"V{top + POSTERIORS}Z" if drawn else "")
