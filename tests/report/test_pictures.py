"""Pictures of figures that are known."""

import io
import math
import re
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import get_data_path
from PIL import Image, ImageFont

from plateau.decoding.files import Interval
from plateau.report.pictures import bars, chart, posteriors, rows, spectrogram, text_width
from tests.page import Page


def test_a_spectrogram_has_a_pixel_for_each_bin_low_ones_below_and_loud_ones_black():
    features = torch.full((50, 20), -10.0)
    features[10:20, 3] = 5.0  # frames 10 to 19, the fourth bin from below
    with Image.open(io.BytesIO(spectrogram(features))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (20, 50)
    black = np.argwhere(pixels == 0).tolist()
    assert black == [[16, t] for t in range(10, 20)]
    assert (pixels == 255).sum() == 20 * 50 - 10


def test_posteriors_are_drawn_over_their_frames():
    """Frames of 20 ms, of which the first begins with the audio; 360 pixels a second."""
    probs = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    heard = [Interval(0.015, 0.035, "a<")]
    drawn = Page(posteriors(probs.log(), heard, ["<blk>", "a<"], 2, 0.075))
    blank, token, stem = drawn.attributes("d", "path")
    edges = [360 * t for t in (0, 0.015, 0.035, 0.055, 0.075)]
    assert token == f"M{edges[1]:.1f} 138V48.0H{edges[2]:.1f}V78.0H{edges[3]:.1f}V138Z"
    numbers = re.fullmatch("M0.0 138V(.*)V138Z", blank)[1]
    heights, ends = zip(
        *(map(float, piece.split("H")) for piece in numbers.split("V")), strict=True
    )
    assert heights == (18, 108, 78, 18)
    assert ends == pytest.approx(edges[1:], abs=0.05)
    assert drawn.text == "<blk> a< a<a<, 0.015 s"
    assert stem.startswith("M9.0 ") and stem.endswith("V18")  # 25 ms, down to the posteriors
    (middle,) = (float(x) for x in drawn.attributes("x", "text"))
    assert middle == pytest.approx(text_width("a<") / 2 + 2, abs=0.06)  # not cut off at the left


@given(
    st.lists(
        st.tuples(st.floats(0, 1.2), st.text("AWi▁漢字", min_size=1, max_size=40)), max_size=20
    )
)
@settings(deadline=None)
def test_no_token_lies_on_another(said):
    """By their widths in DejaVu Sans, of which characters of East Asia are as wide as high."""
    heard = [Interval(t, t + 0.02, label) for t, label in sorted(said)]
    svg = posteriors(None, heard, ["<blk>"], 2, 1.0)
    drawn = Page(svg)
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf", 12)
    boxes = defaultdict(list)
    texts = re.findall('<text x="(.*?)" y="(.*?)">(.*?)<title>', svg)
    assert len(texts) == sum(t < 1.0 for t, _ in said)
    for x, y, text in texts:
        half = max(font.getlength(text), 12 * sum(c in "漢字" for c in text)) / 2
        boxes[y].append((float(x) - half, float(x) + half))
    for row in boxes.values():
        row.sort()
        assert row[0][0] >= 0
        for (_, end), (begin, _) in pairwise(row):
            assert end <= begin + 0.1  # numbers are written with one digit
    (height,) = drawn.attributes("height", "svg")
    assert all(0 < float(y) - 12 < float(y) < int(height) for y in boxes)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=30))
def test_rows_are_as_few_as_can_be_and_have_no_overlaps(spans):
    boxes = sorted((left, left + width) for left, width in spans)
    found = rows(boxes)
    filled = [(row, x) for row, box in zip(found, boxes, strict=True) for x in range(*box)]
    assert len(filled) == len(set(filled))
    deepest = max((sum(x == each for _, each in filled) for _, x in filled), default=0)
    assert len(set(found)) == deepest


def test_a_chart_leaves_out_what_is_not_finite_and_stands_a_single_epoch():
    curves = {"train": [(1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0)], "dev": []}
    drawn = Page(chart("loss & more", "nats", curves))
    assert [len(points.split()) for points in drawn.attributes("points")] == [2]
    assert drawn.attributes("aria-label") == ["loss & more, nats, after each epoch"]
    one = Page(chart("loss", "nats", {"train": [(1, 0.0)]}))
    assert all(math.isfinite(float(y)) for y in one.attributes("cy"))
    assert chart("loss", "nats", {"train": [(1, math.nan)]}) == ""


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
@settings(deadline=None)
def test_a_charts_legend_and_axes_lie_outside_of_its_curves(values):
    points = [(n, value) for n, value in enumerate(values, start=1)]
    svg = chart("loss", "nats per token", {"train": points, "dev": points})
    drawn = Page(svg)
    xs = [float(x) for x in drawn.attributes("cx")]
    ys = [float(y) for y in drawn.attributes("cy")]
    keys = [a for tag, a in drawn.tags if tag == "text" and a.get("class") == "key"]
    assert len(keys) == 2 and float(keys[0]["x"]) + text_width("train") < float(keys[1]["x"])
    assert all(float(key["y"]) + 3 < min(ys) - 3 for key in keys)  # descenders, points' radius
    assert "nats per token" in drawn.text and "epoch" in drawn.text
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 12)
    numbers = re.findall('<text x="([0-9.]+)" y=".*?" text-anchor="end">(.*?)<', svg)
    assert len(numbers) >= 2
    for x, number in numbers:
        assert float(x) < min(xs) - 3
        assert float(x) - font.getlength(number) > 12 + 3  # the unit's base line, and its descent


def test_bars_are_as_high_as_their_values_and_stand_on_one_line():
    drawn = Page(bars("latents & more", "nats", [4.0, 2.0, 0.0]))
    heights = [float(height) for height in drawn.attributes("height", "rect")]
    tops = [float(y) for y in drawn.attributes("y", "rect")]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.02) and heights[2] == 0
    assert np.ptp(np.add(tops, heights)) < 0.02
    ticks = [float(a["y"]) for _, a in drawn.tags if a.get("text-anchor") == "end"]
    assert ticks[0] - 4 == pytest.approx(tops[0] + heights[0], abs=0.06)  # at 0
    assert drawn.attributes("aria-label") == ["latents & more, nats"]
    lefts = [float(x) for x in drawn.attributes("x", "rect")]
    width = float(drawn.attributes("width", "rect")[0])
    assert all(a + width < b for a, b in pairwise(lefts))
    assert all(float(h) == 0 for h in Page(bars("z", "nats", [0.0])).attributes("height", "rect"))
