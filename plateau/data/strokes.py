"""Pen strokes and their offsets, as in Graves 2013 (arXiv 1308.0850), section 4."""

from collections.abc import Sequence

import numpy as np

FIELDS = ("dx", "dy", "pen")


def to_offsets(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """A drawing as steps of the pen.

    What a step cannot say is left out: of a point that is repeated, all but the last (the pen is
    then as after the last), so that no step has length 0; and dots before the first line, since
    there is no step to the first point.

    Args:
        strokes: points of each, (T_i, 2), y upwards

    Returns:
        (T, 3), float64: dx, dy to a point from the one before it, and pen, 1 where the pen is
        lifted after that point. No step, T = 0, where there is no line.
    """
    points = np.concatenate(strokes)  # (sum of T_i, 2)
    pen = np.zeros(len(points))
    pen[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1
    last = np.append(np.any(np.diff(points, axis=0) != 0, axis=1), True)
    points, pen = points[last], pen[last]
    if pen.all():
        return np.zeros((0, 3))
    first = int(np.argmin(pen))
    return np.column_stack([np.diff(points[first:], axis=0), pen[first + 1 :]])


def to_strokes(offsets: np.ndarray) -> list[np.ndarray]:
    """The strokes, (T_i, 2) each, of steps (T, 3); the first starts at (0, 0)."""
    points = np.vstack([np.zeros(2), np.cumsum(offsets[:, :2], axis=0)])
    lifts = np.flatnonzero(offsets[:, 2] > 0.5) + 2  # points before each lift
    return [stroke for stroke in np.split(points, lifts) if len(stroke)]


def resample(stroke: np.ndarray, spacing: float) -> np.ndarray:
    """Points on a stroke, (T, 2), about ``spacing`` apart along it and equally so, ends included.

    There are three at least: a dot drawn as a small circle would otherwise be one point twice.
    """
    along = np.append(0, np.cumsum(np.hypot(*np.diff(stroke, axis=0).T)))
    wanted = np.linspace(0, along[-1], max(2, round(along[-1] / spacing)) + 1)
    return np.column_stack([np.interp(wanted, along, values) for values in stroke.T])
