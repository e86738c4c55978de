import pytest
import torch

from plateau.models.made import MaskedNetwork

H, SIZES = 4, [2, 3, 1, 2]
D = len(SIZES)


def make(num_layers=1, hidden_dim=16):
    torch.manual_seed(0)
    return MaskedNetwork(H, SIZES, hidden_dim, num_layers).double()


def dependence(network):
    """Which values (D) the parameters of each value (D) depend on, by the Jacobian, somewhere."""
    found = torch.zeros(D, D, dtype=torch.bool)
    for seed in range(5):
        torch.manual_seed(seed)
        context = torch.randn(H).double()
        jacobian = torch.autograd.functional.jacobian(
            lambda x, context=context: network(context, x), torch.randn(D).double()
        )
        groups = jacobian.split(SIZES)
        found |= torch.stack([group.abs().amax(0) > 0 for group in groups])
    return found


BEFORE = torch.ones(D, D).tril(-1).bool()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_parameters_depend_on_the_values_before_and_no_others(num_layers):
    assert torch.equal(dependence(make(num_layers)), BEFORE)


def test_planted_a_mask_one_off_is_seen():
    """An output that sees units of its own value (≥ + 1 in the hidden layer's mask)."""
    network = make()
    first = network.layers[0]
    degrees = torch.arange(16) % D
    first.mask = (degrees[:, None] + 1 >= torch.arange(1, D + 1)).double()
    assert not torch.equal(dependence(network), BEFORE)


def test_all_parameters_depend_on_the_context():
    network = make(2)
    jacobian = torch.autograd.functional.jacobian(
        lambda context: network(context, torch.ones(D).double()), torch.ones(H).double()
    )
    assert (jacobian.abs() > 0).any(1).all()


def test_few_hidden_units_leak_nothing():
    assert not (dependence(make(hidden_dim=1)) & ~BEFORE).any()
    assert not (dependence(make(hidden_dim=3)) & ~BEFORE).any()


def test_leading_dimensions_and_masks_in_checkpoints():
    network = make()
    context, x = torch.randn(3, 5, H).double(), torch.randn(3, 5, D).double()
    found = network(context, x)
    assert found.shape == (3, 5, sum(SIZES))
    torch.testing.assert_close(found[1, 2], network(context[1, 2], x[1, 2]))
    assert not any("mask" in name for name in network.state_dict())  # they follow from the sizes
