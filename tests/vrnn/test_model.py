"""What the recipe's model makes of sequences again, and after them."""

import pytest
import torch

from tests.vrnn.untrained import make


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("job"))
        _, model = make("strokes")
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_a_reconstruction_is_no_draw_and_reads_each_step_and_those_before(model):
    values = torch.randn(1, 6, 3)
    lengths = torch.tensor([6])
    again = model.reconstructed(values, lengths)
    assert torch.equal(again, model.reconstructed(values, lengths))
    changed = values.clone()
    changed[0, 3] += 1
    differs = (model.reconstructed(changed, lengths) != again).any(2)[0].tolist()
    assert differs == [False, False, False, True, True, True]


def test_padding_changes_no_reconstruction(model):
    values = torch.randn(2, 6, 3)
    alone = model.reconstructed(values[1:, :4], torch.tensor([4]))
    beside = model.reconstructed(values, torch.tensor([6, 4]))[1:, :4]
    torch.testing.assert_close(beside, alone)


def test_what_is_given_stays_and_what_follows_is_drawn(model):
    given = torch.randn(4, 3)
    both = model.continued(given, 2, 5)
    assert both.shape == (2, 9, 3)
    assert torch.equal(both[:, :4], given.expand(2, 4, 3))
    assert not torch.equal(both[0, 4:], both[1, 4:])


def test_a_traversal_is_drawn_with_the_same_numbers_each_time(model):
    torch.manual_seed(7)
    after = torch.rand(2)
    torch.manual_seed(7)
    first = torch.rand(())
    drawn = model.traversed(2, [-1.0, 1.0, -1.0], 8, seed=3)
    assert torch.rand(()) == after[1] and first == after[0]  # others are drawn as without it
    assert drawn.shape == (3, 8, 3)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    torch.manual_seed(3)
    alone = model.denormalised(model.core.sample(1, 8, held=(2, 1.0)))
    assert torch.equal(drawn[1:2], alone)
    assert not torch.equal(drawn, model.traversed(2, [-1.0, 1.0, -1.0], 8, seed=4))
