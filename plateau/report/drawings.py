"""Sequences as pictures: drawings as lines, images as they are, waveforms over time."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from plateau.data.sequences import About
from plateau.data.strokes import to_strokes


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
