"""Pictures of figures that are known."""

import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from plateau.alignment.files import Interval
from plateau.report.pictures import chart, posteriors, spectrogram
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
    blank, token = drawn.attributes("d", "path")
    edges = [360 * t for t in (0, 0.015, 0.035, 0.055, 0.075)]
    assert token == f"M{edges[1]:.1f} 138V48.0H{edges[2]:.1f}V78.0H{edges[3]:.1f}V138Z"
    numbers = re.fullmatch("M0.0 138V(.*)V138Z", blank)[1]
    heights, ends = zip(
        *(map(float, piece.split("H")) for piece in numbers.split("V")), strict=True
    )
    assert heights == (18, 108, 78, 18)
    assert ends == pytest.approx(edges[1:], abs=0.05)
    assert "".join(drawn.texts).split() == ["<blk>", "a<", "a<"]
    assert [float(x) for x in drawn.attributes("x", "text")] == [360 * 0.025]


def test_a_chart_leaves_out_what_is_not_finite_and_stands_a_single_epoch():
    curves = {"train": [(1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0)], "dev": []}
    drawn = Page(chart("loss & more", curves))
    assert [len(points.split()) for points in drawn.attributes("points")] == [2]
    assert drawn.attributes("aria-label") == ["loss & more after each epoch"]
    one = Page(chart("loss", {"train": [(1, 0.0)]}))
    assert all(math.isfinite(float(y)) for y in one.attributes("cy"))
    assert chart("loss", {"train": [(1, math.nan)]}) == ""
