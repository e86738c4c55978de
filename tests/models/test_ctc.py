import subprocess
import sys

import pytest
import torch

from plateau.models.blstm import BlstmOptions
from plateau.models.conformer import ConformerOptions
from plateau.models.ctc import CtcModel
from plateau.models.encoder import EncoderOptions


def make(kind, dropout=0.0):
    torch.manual_seed(0)
    conformer = ConformerOptions(
        dim=32, num_layers=2, feedforward_dim=64, dropout=dropout, subsampling_channels=4
    )
    blstm = BlstmOptions(dim=16, num_layers=1, dropout=dropout, subsampling_channels=4)
    return CtcModel(8, 5, EncoderOptions(kind, conformer, blstm))


@pytest.mark.parametrize("kind", ["conformer", "blstm"])
def test_distributions_in_float32(kind):
    model = make(kind)
    features, lengths = torch.randn(3, 30, 8), torch.tensor([30, 11, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs, new_lengths = model(features, lengths)
    assert log_probs.shape == (3, 8, 5) and log_probs.dtype == torch.float32
    assert new_lengths.tolist() == [8, 3, 1] == model.output_lengths(lengths).tolist()
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3, 8))


@pytest.mark.parametrize("kind", ["conformer", "blstm"])
def test_normalisation_is_applied(kind):
    model = make(kind).eval()
    features, lengths = torch.randn(2, 20, 8), torch.tensor([20, 13])
    expected, _ = model(features, lengths)
    mean, std = torch.randn(8), torch.rand(8) + 0.5
    model.norm.set_statistics(mean, std)
    result, _ = model(features * std + mean, lengths)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["conformer", "blstm"])
def test_learns_a_small_batch_by_heart(kind):
    torch.manual_seed(0)
    model = make(kind)
    features, lengths = torch.randn(3, 40, 8), torch.tensor([40, 32, 24])
    targets = torch.tensor([[1, 2, 3, 4], [4, 4, 1, 0], [2, 1, 0, 0]])
    target_lengths = torch.tensor([4, 3, 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        log_probs, new_lengths = model(features, lengths)
        loss = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1), targets, new_lengths, target_lengths
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for n in range(3):
        best = log_probs[n, : new_lengths[n]].argmax(-1).unique_consecutive()
        assert best[best > 0].tolist() == targets[n, : target_lengths[n]].tolist()


def test_imports_without_k2():
    code = "import sys, plateau.models.ctc; sys.exit('k2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
