"""Drawings and waveforms of known points."""

import re

import numpy as np
import pytest
import torch

from plateau.data.strokes import to_offsets
from plateau.report.drawings import COLUMNS, strokes_svg, waveform_svg

SQUARE = [np.array([[0, 0], [4, 0], [4, 4]]), np.array([[0, 4], [0, 2]]), np.array([[2, 2]])]


def paths(svg: str) -> list[tuple[bool, list[tuple[float, float]]]]:
    """Whether it is given, and its points, of each path; y upwards."""
    found = []
    for given, d in re.findall(r'<path( class="given")? d="(.*?)"/>', svg):
        points = [tuple(map(float, xy.split())) for xy in re.split("[ML]", d)[1:]]
        assert points[-1] == points[-2]
        found.append((bool(given), [(x, -y) for x, y in points[:-1]]))
    return found


def test_a_drawing_is_its_strokes_within_its_box():
    svg = strokes_svg(torch.from_numpy(to_offsets(SQUARE)))
    assert paths(svg) == [(False, [tuple(xy) for xy in stroke]) for stroke in SQUARE]
    box = [float(x) for x in re.search('viewBox="(.*?)"', svg)[1].split()]
    assert box == pytest.approx([-0.2, -4.2, 4.4, 4.4])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Within a stroke: both parts have the point where it was cut.
        (1, [(True, [(0, 0), (4, 0)]), (False, [(4, 0), (4, 4)])]),
        # Where the pen was lifted no line goes from one part to the other.
        (2, [(True, [(0, 0), (4, 0), (4, 4)])]),
    ],
)
def test_what_is_given_has_a_class_and_the_rest_goes_on_where_it_did(given, expected):
    rest = [(False, [(0, 4), (0, 2)]), (False, [(2, 2)])]
    assert paths(strokes_svg(torch.from_numpy(to_offsets(SQUARE)), given)) == expected + rest


@pytest.mark.parametrize("num", [1, 10, COLUMNS, 3 * COLUMNS])
def test_a_waveform_shows_the_lowest_and_highest_sample_of_each_stretch(num):
    samples = np.random.default_rng(0).uniform(-1.2, 1.2, (2 * num, 5))
    svg = waveform_svg(torch.from_numpy(samples), given=num)
    given, rest = (
        [tuple(map(float, line)) for line in re.findall(r"M([-\d.]+) ([-\d.]+)V([-\d.]+)", path)]
        for path in re.findall(r'd="(.*?)"', svg)
    )
    count = min(COLUMNS, samples.size)
    assert len(given) == len(rest) == count // 2
    assert [x for x, *_ in given + rest] == list(range(count))
    high = [-top for _, top, _ in given + rest]
    low = [0.005 - bottom for *_, bottom in given + rest]
    stretches = np.array_split(samples.flatten().clip(-1, 1), count)
    np.testing.assert_allclose(high, [part.max() for part in stretches], atol=0.0006)
    np.testing.assert_allclose(low, [part.min() for part in stretches], atol=0.0006)
