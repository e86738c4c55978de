import pytest
import torch
from torch import nn

from plateau.models.dropout import Dropout


def test_nothing_in_evaluation_and_at_zero():
    x = torch.randn(5, 7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.999])
def test_rate_and_scale(p):
    torch.manual_seed(0)
    rounded = min(round(256 * p), 255) / 256
    y = Dropout(p)(torch.ones(1000, 333))
    scale = 1 / (1 - rounded)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(scale).item()}
    # Binomial: three million deviates' mean is within 5 standard deviations.
    deviation = (rounded * (1 - rounded) / y.numel()) ** 0.5
    assert abs((y == 0).double().mean() - rounded) < 5 * deviation


def test_elements_are_independent():
    """Neighbours at distances inside and across the 8-byte words drop together at rate p²."""
    torch.manual_seed(0)
    n = 400_000
    dropped = (Dropout(0.25)(torch.ones(n)) == 0).double()
    for distance in (1, 2, 4, 7, 8, 16, 64):
        both = (dropped[:-distance] * dropped[distance:]).mean()
        assert abs(both - 0.25**2) < 5 * (0.25**2 / n) ** 0.5


def test_gradient_is_the_mask_and_seed_decides():
    x = torch.randn(11, 3, dtype=torch.float64, requires_grad=True)
    layer = Dropout(0.5)
    torch.manual_seed(1)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)
    torch.manual_seed(1)
    assert torch.equal(layer(x), y)
    assert not torch.equal(layer(x), y)


def test_odd_sizes_and_types():
    for shape in [(0, 3), (1,), (3, 5, 7)]:
        for dtype in (torch.float32, torch.bfloat16):
            y = Dropout(0.1)(torch.ones(shape, dtype=dtype))
            assert y.shape == shape and y.dtype == dtype


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_is_torch_dropout():
    x = torch.ones(1000, device="cuda")
    torch.manual_seed(0)
    expected = nn.Dropout(0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.3)(x), expected)
