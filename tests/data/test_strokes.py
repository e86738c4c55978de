from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plateau.data.strokes import resample, to_offsets, to_strokes

POINTS = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
DRAWINGS = st.lists(st.lists(POINTS, min_size=1, max_size=6), min_size=1, max_size=5)


def segments(strokes) -> list[tuple]:
    """The lines that are drawn, in order."""
    drawn = []
    for stroke in strokes:
        points = [tuple(p) for p in stroke]
        drawn += [(a, b) for a, b in pairwise(points) if a != b]
    return drawn


def test_a_drawing_worked_out_by_hand():
    strokes = [np.array([[1, 1], [2, 3]]), np.array([[5, 3]]), np.array([[4, 0], [4, 2], [5, 2]])]
    assert to_offsets(strokes).tolist() == [
        [1, 2, 1],  # pen is lifted after the second point
        [3, 0, 1],  # a dot
        [-1, -3, 0],
        [0, 2, 0],
        [1, 0, 1],
    ]


@given(DRAWINGS)
def test_the_same_lines_are_drawn_without_repeated_points(drawing):
    """A loop over points is the truth: each line that is drawn, from the first one on."""
    offsets = to_offsets([np.array(stroke, float) for stroke in drawing])
    assert offsets.shape[1] == 3
    assert np.isin(offsets[:, 2], (0, 1)).all()
    assert offsets[:, :2].any(axis=1).all()
    drawn = segments(drawing)
    if not drawn:
        assert len(offsets) == 0
        return
    assert offsets[-1, 2] == 1
    start = np.array(drawn[0][0])
    redrawn = segments(np.array(s) + start for s in to_strokes(offsets))
    assert redrawn == drawn


@given(DRAWINGS)
def test_offsets_of_strokes_of_offsets_are_the_same(drawing):
    offsets = to_offsets([np.array(stroke, float) for stroke in drawing])
    if len(offsets):
        assert np.array_equal(to_offsets(to_strokes(offsets)), offsets)


def test_points_are_equally_far_apart_along_the_stroke():
    corner = np.array([[0, 0], [10, 0], [10, 5]], float)
    points = resample(corner, 2.5)
    assert np.allclose(
        points, [[0, 0], [2.5, 0], [5, 0], [7.5, 0], [10, 0], [10, 2.5], [10, 5]], atol=1e-12
    )
    # 15 / 4 is rounded to 4 steps of 3.75
    assert np.allclose(resample(corner, 4), [[0, 0], [3.75, 0], [7.5, 0], [10, 1.25], [10, 5]])


def test_a_small_circle_has_a_point_on_its_other_side():
    diamond = np.array([[0, 0], [1, 1], [2, 0], [1, -1], [0, 0]], float)
    assert np.allclose(resample(diamond, 100), [[0, 0], [2, 0], [0, 0]])
