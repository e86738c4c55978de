import pytest
import torch

from plateau.config import UserError
from plateau.models.text_decoder import TextDecoder, TextDecoderOptions

OPTIONS = TextDecoderOptions(dim=16, num_layers=2, num_heads=2, feedforward_dim=32, dropout=0.0)


def make(dtype=torch.float64):
    torch.manual_seed(0)
    return TextDecoder(7, OPTIONS).to(dtype).eval()


def inputs():
    tokens = torch.tensor([[3, 7, 2, 5], [7, 7, 0, 0], [0, 0, 0, 0]])
    return tokens, torch.tensor([4, 2, 0]), torch.randn(3, 9, 16).double(), torch.tensor([9, 5, 2])


def test_a_distribution_for_each_place():
    log_probs = make()(*inputs())
    assert log_probs.shape == (3, 4, 7) and log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(3, 4))
    assert log_probs.isfinite().all()  # of a text without tokens, too


def test_padding_changes_nothing():
    decoder = make()
    tokens, num_tokens, memory, lengths = inputs()
    together = decoder(tokens, num_tokens, memory, lengths)
    for n in range(2):
        size, length = int(num_tokens[n]), int(lengths[n])
        alone = decoder(
            tokens[n : n + 1, :size],
            num_tokens[n : n + 1],
            memory[n : n + 1, :length],
            lengths[n : n + 1],
        )
        torch.testing.assert_close(together[n, :size], alone[0], rtol=0, atol=1e-6)


def test_every_place_sees_all_others_and_the_audio():
    decoder = make()
    tokens, num_tokens, memory, lengths = inputs()
    before = decoder(tokens, num_tokens, memory, lengths)
    for other in (0, 3):  # before and after the mask at 1
        changed = tokens.clone()
        changed[0, other] = 6
        assert (decoder(changed, num_tokens, memory, lengths)[0, 1] != before[0, 1]).any()
    assert (decoder(tokens, num_tokens, 0 * memory, lengths)[0, 1] != before[0, 1]).any()


def test_places_are_told_apart():
    tokens, lengths = torch.tensor([[7, 7, 3]]), torch.tensor([4])
    found = make()(tokens, torch.tensor([3]), torch.randn(1, 4, 16).double(), lengths)
    assert (found[0, 0] - found[0, 1]).abs().max() > 1e-3


def test_sizes_must_fit():
    with pytest.raises(UserError, match="a multiple of num_heads, 3"):
        TextDecoderOptions(dim=16, num_heads=3)
