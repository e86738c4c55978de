"""What the recipe adds to the losses: weights, alignments of the model itself, frames needed."""

import pytest
import torch

pytest.importorskip("k2")

from plateau.alignment.transducer import PADDING, best_path, blank_and_label
from plateau.graphs.ctc import ctc_graphs, ctc_loss
from plateau.graphs.dense import best_paths
from plateau.graphs.labels import pad
from plateau.graphs.transducer import full_loss, pruned_loss, simple_loss
from plateau.models.conformer import ConformerOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel
from transducer.options import LossOptions
from transducer.train import best_frames, frames_needed, transducer_loss

TARGETS = [[1, 2, 2], [3], []]


@pytest.fixture
def model():
    torch.manual_seed(0)
    conformer = ConformerOptions(
        dim=16, num_layers=2, num_heads=2, feedforward_dim=16, dropout=0.0, subsampling=2
    )
    predictor, joiner = PredictorOptions(dim=8), JoinerOptions(dim=8)
    made = TransducerModel(
        10, 4, EncoderOptions(conformer=conformer), predictor, joiner, ctc_layers=(1, 2)
    )
    return made.eval()


@pytest.fixture
def output(model):
    lengths = torch.tensor([30, 24, 26])
    return model(torch.randn(3, 30, 10), lengths, pad(TARGETS))


def log_probs(model, output):
    return model.joiner(output.encoder.unsqueeze(2), output.predictor.unsqueeze(1))


@pytest.mark.parametrize("topology", ["rnnt", "rna", "constrained"])
def test_weights_of_the_pruned_loss_warm_up(model, output, topology):
    options = LossOptions(topology=topology, ctc_layers=(1, 2), ctc_scales=(0.3, 0.7))
    lengths = output.lengths
    simple, ranges = simple_loss(output.am, output.lm, TARGETS, lengths, topology)
    views = output.encoder, output.predictor
    pruned = pruned_loss(*views, model.joiner, ranges, TARGETS, lengths, topology)
    ctc = [ctc_loss(output.ctc[layer], lengths, TARGETS) for layer in (1, 2)]
    auxiliary = 0.3 * ctc[0] + 0.7 * ctc[1]
    for warm, weights in {0.0: (1, 0.1), 0.5: (0.75, 0.55), 1.0: (0.5, 1)}.items():
        expected = weights[0] * simple + weights[1] * pruned + auxiliary
        torch.testing.assert_close(transducer_loss(model, output, TARGETS, options, warm), expected)
    torch.testing.assert_close(transducer_loss(model, output, TARGETS, options, -0.1), auxiliary)


def test_the_full_loss_is_the_sum_over_all_positions(model, output):
    options = LossOptions(kind="full", topology="rna")
    expected = full_loss(log_probs(model, output), TARGETS, output.lengths, "rna")
    torch.testing.assert_close(transducer_loss(model, output, TARGETS, options), expected)


@pytest.mark.parametrize("topology", ["rnnt", "rna", "constrained"])
def test_viterbi_training_on_its_own_alignment_is_the_best_path(model, output, topology):
    options = LossOptions(kind="viterbi", aligner="transducer", topology=topology)
    blank, label = blank_and_label(log_probs(model, output), pad(TARGETS))
    numbers = torch.tensor([len(target) for target in TARGETS])
    _, scores = best_path(blank, label, output.lengths, numbers, topology)
    torch.testing.assert_close(transducer_loss(model, output, TARGETS, options), -scores)


def test_alignment_by_ctc_is_where_tokens_begin(model, output):
    options = LossOptions(kind="viterbi", topology="rna", ctc_layers=(1, 2), ctc_scales=(0, 0))
    frames = best_frames(model, output, TARGETS, options)
    paths = best_paths(output.ctc[2], output.lengths, ctc_graphs(TARGETS))
    for row, path, target in zip(frames.tolist(), paths, TARGETS, strict=True):
        begin = [frame for frame in row if frame != PADDING]
        assert [path[frame] for frame in begin] == target
        assert all(frame == 0 or path[frame - 1] != path[frame] for frame in begin)
    given = [[frame for frame in row if frame != PADDING] for row in frames.tolist()]
    torch.testing.assert_close(
        transducer_loss(model, output, TARGETS, options, frames=given),
        transducer_loss(model, output, TARGETS, options),
    )


def test_frames_needed():
    tokens = [1, 1, 2, 3, 4, 5]
    assert frames_needed(LossOptions(topology="rna"), tokens) == 6
    assert frames_needed(LossOptions(kind="full"), tokens) == 1
    assert frames_needed(LossOptions(prune_range=3), tokens) == 3
    assert frames_needed(LossOptions(ctc_layers=(1,), ctc_scales=(1.0,)), tokens) == 7
    assert frames_needed(LossOptions(), []) == 1
