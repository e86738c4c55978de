import pytest
import torch

from plateau.models.normalise import MIN_STD, GlobalNorm


def test_training_features_get_mean_zero_and_deviation_one():
    torch.manual_seed(0)
    features = torch.randn(4, 50, 3) * torch.tensor([1.0, 5.0, 0.3]) + torch.tensor([0.0, -7, 2])
    norm = GlobalNorm(3)
    frames = features.flatten(0, 1)
    norm.set_statistics(frames.mean(0), frames.std(0))
    result = norm(features).flatten(0, 1)
    torch.testing.assert_close(result.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std(0), torch.ones(3))


def test_identity_until_set_and_kept_in_the_state():
    x = torch.randn(2, 3, 4)
    norm = GlobalNorm(4)
    assert torch.equal(norm(x), x)
    norm.set_statistics(torch.arange(4.0), torch.arange(1.0, 5.0))
    other = GlobalNorm(4)
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other(x), norm(x)) and not torch.equal(norm(x), x)
    assert not list(norm.parameters())


def test_features_that_never_vary():
    norm = GlobalNorm(1)
    norm.set_statistics(torch.tensor([3.0]), torch.tensor([0.0]))
    assert norm(torch.tensor([[4.0]])).item() == pytest.approx(1 / MIN_STD)


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.tensor([0.0, float("nan")])])
def test_refuses_bad_statistics(bad):
    norm = GlobalNorm(2)
    with pytest.raises(ValueError, match="2 finite numbers"):
        norm.set_statistics(bad, torch.ones(2))
    with pytest.raises(ValueError, match="2 finite numbers"):
        norm.set_statistics(torch.zeros(2), bad)
    assert norm.mean.tolist() == [0, 0] and norm.std.tolist() == [1, 1]
