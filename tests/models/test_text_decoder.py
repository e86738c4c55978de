import pytest
import torch

from plateau.config import UserError
from plateau.models.text_decoder import Memory, TextDecoder, TextDecoderOptions

OPTIONS = TextDecoderOptions(dim=16, num_layers=2, num_heads=2, feedforward_dim=32, dropout=0.0)


def make(dtype=torch.float64):
    torch.manual_seed(0)
    return TextDecoder(7, OPTIONS).to(dtype).eval()


def inputs():
    tokens = torch.tensor([[3, 7, 2, 5], [7, 7, 0, 0], [0, 0, 0, 0]])
    places = torch.linspace(-1, 3, 9).double().expand(3, -1)
    memory = Memory(torch.randn(3, 9, 16).double(), places, torch.tensor([9, 5, 2]))
    return tokens, torch.tensor([4, 2, 0]), memory


def test_a_distribution_for_each_place():
    log_probs = make()(*inputs())
    assert log_probs.shape == (3, 4, 7) and log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(3, 4))
    assert log_probs.isfinite().all()  # of a text without tokens, too


def test_padding_changes_nothing():
    decoder = make()
    tokens, num_tokens, memory = inputs()
    together = decoder(tokens, num_tokens, memory)
    for n in range(2):
        size, length = int(num_tokens[n]), int(memory.lengths[n])
        own = memory.of(torch.tensor([n]))
        own = Memory(own.values[:, :length], own.places[:, :length], own.lengths)
        alone = decoder(tokens[n : n + 1, :size], num_tokens[n : n + 1], own)
        torch.testing.assert_close(together[n, :size], alone[0], rtol=0, atol=1e-6)


def test_every_place_sees_all_others_and_the_audio():
    decoder = make()
    tokens, num_tokens, memory = inputs()
    before = decoder(tokens, num_tokens, memory)
    for other in (0, 3):  # before and after the mask at 1
        changed = tokens.clone()
        changed[0, other] = 6
        assert (decoder(changed, num_tokens, memory)[0, 1] != before[0, 1]).any()
    assert (decoder(tokens, num_tokens, memory.silenced())[0, 1] != before[0, 1]).any()


def test_places_are_told_apart():
    tokens, places = torch.tensor([[7, 7, 3]]), torch.zeros(1, 4).double()
    memory = Memory(torch.randn(1, 4, 16).double(), places, torch.tensor([4]))
    found = make()(tokens, torch.tensor([3]), memory)
    assert (found[0, 0] - found[0, 1]).abs().max() > 1e-3


def test_sizes_must_fit():
    with pytest.raises(UserError, match="a multiple of num_heads, 3"):
        TextDecoderOptions(dim=16, num_heads=3)


def test_a_token_is_looked_for_where_it_is_said():
    """A narrow head sees the frames of its place, and no others."""
    decoder = make()
    with torch.no_grad():
        decoder.log_width.fill_(-3.0)  # a twentieth of a token
    tokens, values = torch.tensor([[7, 7, 7]]), torch.randn(1, 6, 16).double()
    places = torch.tensor([[0, 0, 1, 1, 2, 2]]).double()
    number, length = torch.tensor([3]), torch.tensor([6])
    # The first layer alone: in later ones a place also knows what the others have heard.
    decoder.layers = decoder.layers[:1]
    before = decoder(tokens, number, Memory(values, places, length))
    for frame in range(6):
        changed = values.clone()
        changed[0, frame] += 1
        found = decoder(tokens, number, Memory(changed, places, length))
        differs = (found - before).abs().amax(2)[0] > 1e-6
        assert differs.tolist() == [place == frame // 2 for place in range(3)]


def test_what_is_silenced_is_not_heard():
    _, _, memory = inputs()
    silenced = memory.silenced(torch.tensor([True, False, False]))
    assert not silenced.values[0].any() and (silenced.values[1:] == memory.values[1:]).all()
    assert not memory.silenced().values.any()
