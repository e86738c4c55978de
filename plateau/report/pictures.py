"""Pictures as inline SVG, which takes the page's colours, and spectrograms as PNG."""

import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from plateau.alignment.files import Interval
from plateau.data.features import FRAME_SHIFT, frame_times
from plateau.data.tokens import BLANK_ID
from plateau.report.page import BLANK, COLOURS

PIXELS_PER_SECOND = 360
POSTERIORS = 120  # height, pixels
LABELS = 18  # above it, for the tokens that are heard
LEAST = 0.05  # smaller posteriors are not drawn
TICK = 0.1  # seconds, on the axis of time
CHART = (440, 240)  # pixels
MARGIN = (52, 8, 12, 40)  # of a chart: left, right, top, bottom


def spectrogram(features: Tensor) -> bytes:
    """A PNG with a pixel for each frame and mel bin of log energies (T, F); loud is black."""
    energies = features.float().cpu().numpy().T[::-1]  # (F, T), low frequencies below
    soft, loud = np.percentile(energies, (5, 99.8))
    grey = 255 * np.clip((loud - energies) / max(loud - soft, 1e-6), 0, 1)
    file = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(file, "png", optimize=True)
    return file.getvalue()


def posteriors(
    log_probs: Tensor | None,
    heard: Sequence[Interval],
    tokens: Sequence[str],
    subsampling_factor: int,
    seconds: float,
) -> str:
    """Posteriors over time, and above them the tokens of the hypothesis where they are emitted.

    Args:
        log_probs: (T', V), natural; blank is 0. None: only the tokens are drawn.
        heard: tokens of the hypothesis.
        tokens: names of the labels.
        subsampling_factor: feature frames for each frame of ``log_probs``.
        seconds: what is drawn, from 0 on.
    """
    width = round(seconds * PIXELS_PER_SECOND)
    height = LABELS + (0 if log_probs is None else POSTERIORS)
    lines = [f'<svg class="posteriors" width="{width}" height="{height}" aria-hidden="true">']
    if log_probs is not None:
        probs = log_probs.exp().cpu().numpy()  # (T', V)
        edges = [frame_times(t, subsampling_factor)[0] for t in range(len(probs))]
        edges.append(frame_times(len(probs) - 1, subsampling_factor)[1])
        for label in np.flatnonzero(probs.max(0) >= LEAST):  # blank first: the others lie on it
            fill = 0.12 if label == BLANK_ID else 0.35
            lines.append(
                f'<path d="{_steps(probs[:, label], edges)}" fill="{_colour(label)}" '
                f'stroke="{_colour(label)}" fill-opacity="{fill}">'
                f"<title>{escape(tokens[label])}</title></path>"
            )
    labels = {token: label for label, token in enumerate(tokens)}
    for token in heard:
        x = (token.start + token.end) / 2 * PIXELS_PER_SECOND
        colour = _colour(labels.get(token.label, BLANK_ID))
        lines.append(f'<text x="{x:.1f}" y="13" fill="{colour}">{escape(token.label)}</text>')
    return "\n".join([*lines, "</svg>"])


def time_axis(seconds: float) -> str:
    """Ticks and seconds, in the scale of `posteriors`."""
    width = round(seconds * PIXELS_PER_SECOND)
    lines = [f'<svg class="axis" width="{width}" height="22" aria-hidden="true">']
    for tick in range(int(seconds / TICK + 1e-6) + 1):
        x = tick * TICK * PIXELS_PER_SECOND
        numbered = tick % 5 == 0
        lines.append(f'<path d="M{x:.1f} 0v{6 if numbered else 3}"/>')
        if numbered:
            anchor = "middle" if tick else "start"
            lines.append(
                f'<text x="{x:.1f}" y="18" text-anchor="{anchor}">{tick * TICK:.1f}</text>'
            )
    return "\n".join([*lines, "</svg>"])


def chart(name: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves over epochs.

    Args:
        name: what is drawn.
        curves: by name, points (epoch, value); those that are not finite are left out.
    """
    finite = {
        key: [(x, y) for x, y in points if math.isfinite(y)] for key, points in curves.items()
    }
    points = [point for each in finite.values() for point in each]
    if not points:
        return ""
    (left, right, top, bottom), (width, height) = MARGIN, CHART
    last = max(2.0, max(x for x, _ in points))
    lowest, highest = min(0.0, min(y for _, y in points)), max(y for _, y in points)
    if highest == lowest:
        highest += 1
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(lowest, highest)
    lowest, highest = ticks[0], ticks[-1]

    def x_of(epoch: float) -> float:
        return left + (epoch - 1) / (last - 1) * (width - left - right)

    def y_of(value: float) -> float:
        return height - bottom - (value - lowest) / (highest - lowest) * (height - top - bottom)

    lines = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(name)} after each epoch">'
    ]
    for tick in ticks:
        y = y_of(tick)
        lines.append(f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in MaxNLocator(8, integer=True).tick_values(1, last):
        if 1 <= tick <= last:
            text = f'<text x="{x_of(tick):.1f}" y="{height - bottom + 16}" text-anchor="middle">'
            lines.append(f"{text}{tick:g}</text>")
    middle = (left + width - right) / 2
    lines.append(f'<text x="{middle:.1f}" y="{height - 6}" text-anchor="middle">epoch</text>')
    for number, (key, each) in enumerate(finite.items()):
        colour = COLOURS[number % len(COLOURS)]
        if not each:
            continue
        drawn = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in each)
        lines.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}"/>')
        lines += [
            f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}">'
            f"<title>{escape(key)} {y:.4g}, epoch {x:g}</title></circle>"
            for x, y in each
        ]
        y = top + 14 + 17 * number
        lines.append(
            f'<text x="{width - right - 4}" y="{y}" text-anchor="end" class="key" fill="{colour}">'
            f"{escape(key)}</text>"
        )
    return "\n".join([*lines, "</svg>"])


def image_width(features: Tensor) -> int:
    """Width of the spectrogram of features (T, F) in the scale of `posteriors`, pixels."""
    return round(len(features) * FRAME_SHIFT * PIXELS_PER_SECOND)


def _colour(label: int) -> str:
    return BLANK if label == BLANK_ID else COLOURS[label % len(COLOURS)]


def _steps(probs: np.ndarray, edges: Sequence[float]) -> str:
    """A path under probabilities (T',): a block for each stretch of frames that are not small."""
    path = []
    drawn = False
    for t, p in enumerate(probs):
        x, y = edges[t] * PIXELS_PER_SECOND, LABELS + POSTERIORS * (1 - p)
        if p < LEAST:
            if drawn:
                path.append(f"V{LABELS + POSTERIORS}Z")
        else:
            path.append("" if drawn else f"M{x:.1f} {LABELS + POSTERIORS}")
            path.append(f"V{y:.1f}H{edges[t + 1] * PIXELS_PER_SECOND:.1f}")
        drawn = p >= LEAST
    return "".join(path) + (f"V{LABELS + POSTERIORS}Z" if drawn else "")
