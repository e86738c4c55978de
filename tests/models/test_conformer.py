import math

import pytest
import torch
import torch.nn.functional as F

from plateau.config import UserError
from plateau.models.conformer import (
    Conformer,
    ConformerOptions,
    ConvolutionModule,
    RelativeSelfAttention,
    relative_positions,
    relative_shift,
)
from plateau.models.subsampling import padding_mask


@pytest.mark.parametrize("T", [1, 2, 5])
def test_relative_shift_by_enumeration(T):
    scores = torch.randn(2, 3, T, 2 * T)
    shifted = relative_shift(scores)
    assert shifted.shape == (2, 3, T, T)
    for i in range(T):
        for j in range(T):  # column c is relative position T - c, wanted is i - j
            assert torch.equal(shifted[:, :, i, j], scores[:, :, i, T - (i - j)])


def test_relative_positions_by_formula():
    T, D = 4, 6
    table = relative_positions(T, torch.zeros(1, D))
    assert table.shape == (2 * T, D)
    for c in range(2 * T):
        for d in range(D // 2):
            angle = (T - c) / 10000 ** (2 * d / D)
            assert table[c, d].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[c, D // 2 + d].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize(("T", "context"), [(1, 0), (6, 0), (6, 2), (1, 2)])
def test_attention_against_explicit_loops(T, context):
    """Section 3.3 of Dai et al. 2019, one score at a time, in float64."""
    torch.manual_seed(0)
    N, D, H = 3, 8, 2
    size = D // H
    module = RelativeSelfAttention(D, H, dropout=0.0, context=context).double()
    torch.nn.init.normal_(module.content_bias)
    torch.nn.init.normal_(module.position_bias)
    x = torch.randn(N, T, D, dtype=torch.float64)
    lengths = torch.tensor([T, max(T - 2, 1), 1])
    result = module(x, relative_positions(T, x), padding_mask(lengths, T))

    def encoding(distance):
        angles = [distance / 10000 ** (2 * d / D) for d in range(D // 2)]
        values = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        return torch.tensor(values, dtype=torch.float64)

    W_q, W_k, W_v = module.query_key_value.weight.chunk(3)
    b_q, b_k, b_v = module.query_key_value.bias.chunk(3)
    W_r = module.position.weight
    for n in range(N):
        for i in range(T):
            seen = [j for j in range(lengths[n]) if not context or abs(i - j) <= context]
            if not seen:  # padding, far from all
                assert result[n, i].isfinite().all()
                continue
            heads = []
            for h in range(H):
                part = slice(h * size, (h + 1) * size)
                u, v = module.content_bias[h], module.position_bias[h]
                q = (W_q @ x[n, i] + b_q)[part]
                scores, values = [], []
                for j in seen:
                    k = (W_k @ x[n, j] + b_k)[part]
                    r = (W_r @ encoding(i - j))[part]
                    scores.append(((q + u) @ k + (q + v) @ r) / math.sqrt(size))
                    values.append((W_v @ x[n, j] + b_v)[part])
                weights = torch.stack(scores).softmax(0)
                heads.append(weights @ torch.stack(values))
            expected = module.output(torch.cat(heads))
            torch.testing.assert_close(result[n, i], expected, rtol=1e-6, atol=1e-6)


def test_convolution_module_against_conv1d():
    torch.manual_seed(0)
    module = ConvolutionModule(6, 5, identity_start=False).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    result = module(x, padding_mask(torch.tensor([9, 4]), 9))
    for n, length in enumerate([9, 4]):
        gated = F.glu(module.pointwise_in(x[n, :length]))
        kernel = module.depthwise.weight[:, :, 0].contiguous()  # (D, 1, K)
        y = F.conv1d(gated.T[None], kernel, module.depthwise.bias, padding=2, groups=6)[0].T
        expected = module.pointwise_out(F.silu(module.norm(y)))
        torch.testing.assert_close(result[n, :length], expected)


def test_convolutions_start_without_a_shift_in_time():
    options = ConformerOptions(dim=8, num_layers=2, num_heads=2, feedforward_dim=8)
    for block in Conformer(4, options).blocks:
        depthwise = block.convolution.depthwise
        x = torch.randn(1, 8, 1, 30)
        torch.testing.assert_close(depthwise(x), x + depthwise.bias[:, None, None])


def test_longer_than_anything_seen():
    torch.manual_seed(0)
    options = ConformerOptions(dim=8, num_layers=1, num_heads=2, feedforward_dim=8, dropout=0)
    model = Conformer(4, options).eval()
    model(torch.randn(1, 8, 4), torch.tensor([8]))
    y, lengths = model(torch.randn(1, 6001, 4), torch.tensor([6001]))
    assert y.shape == (1, 1501, 8) and lengths.tolist() == [1501]
    assert y.isfinite().all()


def test_inner_layers_are_the_outputs_of_fewer_blocks():
    torch.manual_seed(0)
    options = ConformerOptions(dim=8, num_layers=3, num_heads=2, feedforward_dim=8)
    model = Conformer(4, options).eval()
    model.check_layers((1, 2, 3))
    features, lengths = torch.randn(2, 40, 4), torch.tensor([40, 23])
    _, new, inner = model.forward_layers(features, lengths, (2, 1, 2))
    blocks = model.blocks
    for layer, x in zip((2, 1, 2), inner, strict=True):
        model.blocks = blocks[:layer]
        expected, _ = model(features, lengths)
        for n, length in enumerate(new):
            assert torch.equal(x[n, :length], expected[n, :length])
    # A loss on an inner layer trains the layers up to it, and no other.
    inner[1].sum().backward()
    trained = [any(p.grad is not None for p in block.parameters()) for block in blocks]
    assert trained == [True, False, False]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"dim": 10, "num_heads": 4}, "num_heads"),
        ({"dim": 9, "num_heads": 3}, "even"),
        ({"conv_kernel": 4}, "odd"),
        (
            {"attention_context": -1},
            "attention_context is -1; it must be a whole number, at least 0",
        ),
    ],
)
def test_sizes_that_do_not_fit(wrong, message):
    with pytest.raises(UserError, match=message):
        Conformer(4, ConformerOptions(**wrong))
