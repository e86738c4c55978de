import pytest
import torch
import torch.nn.functional as F

from plateau.models.subsampling import ConvSubsampling, padding_mask


def test_padding_mask():
    expected = [[False, True, True], [False, False, False]]
    assert padding_mask(torch.tensor([1, 3]), 3).tolist() == expected


@pytest.mark.parametrize("factor", [2, 4, 6])
def test_lengths_are_those_of_the_convolutions(factor):
    model = ConvSubsampling(9, 4, factor, channels=3).eval()
    for length in range(1, 51):
        x, lengths = model(torch.randn(1, length, 9), torch.tensor([length]))
        assert x.shape[1] == lengths.item() == model.output_lengths(length) == -(-length // factor)
    many = torch.arange(1, 51)
    assert model.output_lengths(many).tolist() == [model.output_lengths(n) for n in range(1, 51)]


@pytest.mark.parametrize("factor", [2, 4, 6])
def test_one_utterance_against_plain_convolutions(factor):
    """Without padding, this is conv → relu → … → linear over (C, F), in float64."""
    torch.manual_seed(0)
    model = ConvSubsampling(10, 4, factor, channels=3).double().eval()
    features = torch.randn(2, 23, 10, dtype=torch.float64)
    x = features[:, None]
    for conv in model.convolutions:
        weight = conv.weight.contiguous()
        x = F.conv2d(x, weight, conv.bias, conv.stride, padding=1).relu()  # (N, C, T, F)
    weight = model.linear.weight.view(4, x.shape[3], x.shape[1])
    expected = torch.einsum("nctf,dfc->ntd", x, weight) + model.linear.bias
    result, _ = model(features, torch.tensor([23, 23]))
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("factor", [2, 4, 6])
def test_output_frame_is_centred_on_factor_times_its_index(factor):
    torch.manual_seed(0)
    model = ConvSubsampling(8, 4, factor, channels=16).eval()
    features = torch.randn(1, 60, 8, requires_grad=True)
    x, _ = model(features, torch.tensor([60]))
    x[0, 3].sum().backward()
    seen = features.grad[0].abs().sum(1).nonzero().flatten()
    assert seen.min() + seen.max() == 2 * 3 * factor


def test_padding_may_hold_anything():
    torch.manual_seed(0)
    model = ConvSubsampling(8, 4, 4, channels=4).eval()
    features = torch.randn(1, 21, 8)
    expected, _ = model(features, torch.tensor([21]))
    padded = torch.cat([features, torch.full((1, 9, 8), float("nan"))], dim=1)
    result, lengths = model(padded, torch.tensor([21]))
    assert lengths.tolist() == [6]
    torch.testing.assert_close(result[:, :6], expected)
