"""Sequences as pictures: drawings as lines, images as they are, waveforms over time."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from plateau.data.sequences import About
from plateau.data.strokes import to_strokes
from plateau.report.audio import wav

COLUMNS = 400  # of a waveform in a page


def drawings(
    sequences: Sequence[Tensor], about: About, titles: Sequence[str] = (), columns: int = 0
) -> Figure:
    """A picture of some sequences, each (T, D), in the units of the data.

    Args:
        sequences: what to draw.
        about: what they are.
        titles: of each; none without.
        columns: of the grid; 0: as fits the kind.
    """
    columns = columns or (8 if about.kind == "images" else 2 if about.kind == "strokes" else 1)
    rows = -(-len(sequences) // columns)
    width, height = {"images": (1.1, 1.2), "strokes": (6.0, 1.3), "frames": (10.0, 1.3)}[about.kind]
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for each in axes:
        each.set_axis_off()
    for place, values in zip(axes, sequences, strict=False):
        draw(place, values, about)
    for place, title in zip(axes, titles, strict=False):
        place.set_title(title, fontsize=8)
    return figure


def draw(axes: Axes, values: Tensor, about: About) -> None:
    """Draw one sequence (T, D); of images, only the first."""
    array = torch.as_tensor(values).detach().cpu().double().numpy()
    if about.kind == "images":
        axes.imshow(array[0].reshape(about.shape), cmap="gray_r", vmin=0, vmax=1)
    elif about.kind == "strokes":
        for stroke in to_strokes(array):
            axes.plot(*stroke.T, color="black", linewidth=1, marker="." if len(stroke) < 2 else "")
        axes.set_aspect("equal", adjustable="datalim")
    else:
        samples = array.flatten()
        axes.plot(np.arange(len(samples)) / about.sampling_rate, samples, linewidth=0.3)
        axes.set_ylim(-1, 1)


def strokes_svg(values: Tensor, given: int = 0) -> str:
    """A drawing (T, 3) as an SVG file: a path for each stroke, in the units of the data.

    Args:
        values: the drawing.
        given: strokes of so many first steps have the class ``given``.
    """
    array = torch.as_tensor(values).detach().cpu().double().numpy()
    parts = {"": to_strokes(array)}
    if given:
        parts = {' class="given"': to_strokes(array[:given]), "": _after(array, given)}
    points = np.concatenate([stroke for strokes in parts.values() for stroke in strokes])
    (left, low), (right, high) = points.min(0), points.max(0)
    edge = 0.05 * max(right - left, high - low, 1.0)
    box = (left - edge, -high - edge, right - left + 2 * edge, high - low + 2 * edge)
    paths = (
        f'<path{which} d="M{" L".join(f"{x:.2f} {-y:.2f}" for x, y in [*stroke, stroke[-1]])}"/>'
        for which, strokes in parts.items()
        for stroke in strokes
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{" ".join(f"{b:.2f}" for b in box)}" '
        f'fill="none" stroke="currentColor" stroke-width="{edge / 10:.2f}" '
        'preserveAspectRatio="xMinYMid" '
        f'stroke-linecap="round" stroke-linejoin="round">{"".join(paths)}</svg>\n'
    )


def _after(array: np.ndarray, given: int) -> list[np.ndarray]:
    """The strokes (T_i, 2) of the steps (T, 3) after the first, where those leave the pen."""
    start = array[:given, :2].sum(0)
    strokes = [start + stroke for stroke in to_strokes(array[given:])]
    if array[given - 1, 2] > 0.5:  # lifted: no line begins there
        strokes[0] = strokes[0][1:]
    return [stroke for stroke in strokes if len(stroke)]


def waveform_svg(values: Tensor, given: int = 0) -> str:
    """Frames of a waveform (T, D) as SVG: of each of some stretches, its lowest and highest sample.

    Args:
        values: full scale is 1; what is beyond is cut off.
        given: so many first frames have the class ``given``.
    """
    samples = torch.as_tensor(values).detach().cpu().flatten().clamp(-1, 1).numpy()
    stretches = np.array_split(samples, min(COLUMNS, len(samples)))
    lines = [f"M{x} {-part.max():.3f}V{0.005 - part.min():.3f}" for x, part in enumerate(stretches)]
    first = round(given / len(values) * len(lines))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -1 {len(lines)} 2" '
        'preserveAspectRatio="none" stroke="currentColor">'
        f'<path class="given" d="{"".join(lines[:first])}"/><path d="{"".join(lines[first:])}"/>'
        "</svg>\n"
    )


def sound(values: Tensor, sampling_rate: int) -> bytes:
    """Frames of a waveform (T, D) as a WAV file; what is beyond full scale is clipped."""
    samples = torch.as_tensor(values).detach().cpu().flatten().clamp(-1, 1).numpy()
    return wav(np.round(32767 * samples).astype(np.int16), sampling_rate)
