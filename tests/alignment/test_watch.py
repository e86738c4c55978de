"""Scalars by hand; figures have what they are given."""

import numpy as np
import pytest
import torch

from plateau.alignment.files import Alignment
from plateau.alignment.watch import lattice_figure, peakiness, posterior_figure

TOKENS = ["<blk>", "<unk>", "a", "b"]
# Two utterances, of 4 and 2 frames; the third and fourth frame of the second are padding.
PROBS = torch.tensor(
    [
        [[0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 1.0, 0.0], [0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]],
        [[0.1, 0.1, 0.1, 0.7], [1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.25] * 4],
    ]
)
ALIGNMENT = Alignment((1, 3), -1.0, 4)


def test_peakiness_by_hand():
    values = peakiness(PROBS.log(), torch.tensor([4, 2]), TOKENS)
    assert values["blank_fraction"] == pytest.approx(3 / 6)
    assert values["label_run_frames"] == pytest.approx(3 / 2)  # "a" for two frames, "b" for one
    assert values["sharpness"] == pytest.approx((4 * 0.7 + 2 * 1) / 6)
    of_one_frame = -(0.7 * np.log(0.7) + 3 * 0.1 * np.log(0.1))
    assert values["entropy_nats"] == pytest.approx(4 * of_one_frame / 6)
    only_blank = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]).log()
    assert "label_run_frames" not in peakiness(only_blank, torch.tensor([1]), TOKENS)


def test_posteriors_that_are_never_large_are_not_drawn():
    probs = torch.tensor([[0.5, 0.01, 0.49, 0.0], [0.02, 0.02, 0.96, 0.0]])
    (axes,) = posterior_figure(probs.log(), ALIGNMENT, [2, 3], TOKENS).axes
    drawn = [line.get_ydata() for line in axes.lines]
    np.testing.assert_allclose(drawn, [[0.5, 0.02], [0.49, 0.96]], rtol=1e-5)
    assert [(text.get_text(), text.get_position()[0]) for text in axes.texts] == [
        ("a", 1),
        ("b", 3),
    ]


def test_lattice_has_the_best_path_on_it():
    probs = torch.rand(4, 2)
    (axes,) = lattice_figure(probs.log(), ALIGNMENT, [2, 3], TOKENS).axes
    np.testing.assert_allclose(axes.images[0].get_array(), probs.T, rtol=1e-5)
    assert [tuple(xy) for xy in axes.lines[0].get_xydata()] == [(1, 0), (3, 1)]
