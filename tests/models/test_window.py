import math
from dataclasses import replace

import pytest
import torch

from plateau.data.windows import PADDING, WindowOptions
from plateau.errors import UserError
from plateau.models.window import WindowModel, WindowModelOptions, WordTable, pieces_of

VOCAB = ["<blk>", "<unk>", "SIL", "ALL", "BALL", "CALL", "DO"]
F, V, MASK = 5, len(VOCAB), len(VOCAB)
WINDOW = WindowOptions(frames=8, words=4, frame_stride=3)
OPTIONS = WindowModelOptions(dim=8, audio_layers=1, num_blocks=2, num_heads=2, feedforward_dim=12)
POSITIONS = ("learnt", "sinusoidal", "relative", "none")
every = pytest.mark.parametrize("positions", POSITIONS)


def make(positions="learnt", window=WINDOW, **changes) -> WindowModel:
    """A model in double precision, with nothing left at zero or one."""
    torch.manual_seed(0)
    options = replace(OPTIONS, positions=positions, **changes)
    model = WindowModel(F, VOCAB, window, options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two windows: 20 frames with three words, 11 frames with two, some masked."""
    torch.manual_seed(1)
    features = torch.randn(2, 20, F, dtype=torch.float64)
    words = torch.tensor([[3, MASK, 5, PADDING], [MASK, 6, PADDING, PADDING]])
    return features, torch.tensor([20, 11]), words


@every
def test_shapes_and_which_steps_there_are(positions):
    found = make(positions)(*inputs())
    assert found.logits.shape == (2, 4, V) and found.logits.dtype == torch.float32
    assert found.frames.shape == (2, 7, V)
    assert found.steps.sum(1).tolist() == [7, 4]  # of 3 frames
    torch.testing.assert_close(found.attention.sum(2)[0], torch.ones(4, dtype=torch.float64))
    assert not found.attention[1, :, 4:].any()


@every
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("join", ["stack", "skip"])
def test_padding_changes_nothing(positions, side, join, monkeypatch):
    """How much there is, what is in it, and who else is in the batch: to 1e-10 in double."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model = make(positions, replace(WINDOW, side=side, frame_join=join))
    features, lengths, words = inputs()
    if side == "left":
        words = torch.tensor([[PADDING, 3, MASK, 5], [PADDING, PADDING, MASK, 6]])
    together = model(features, lengths, words)
    longer = torch.full((2, 24, F), math.nan, dtype=torch.float64)
    longer[0, :20], longer[1, :11] = features[0, :20], features[1, :11]
    padded = model(longer, lengths, words)
    for n, (length, number) in enumerate([(20, 3), (11, 2)]):
        steps = -(-length // 3)
        own = slice(0, number) if side == "right" else slice(4 - number, 4)
        alone = model(features[n : n + 1, :length], lengths[n : n + 1], words[n : n + 1, own])
        for other in (together, padded):
            for name, expected, got in (
                ("logits", alone.logits[0], other.logits[n, own]),
                ("attention", alone.attention[0], other.attention[n, own, :steps]),
                ("frames", alone.frames[0], other.frames[n, :steps]),
            ):
                assert (expected - got).abs().max() < 1e-10, name


def test_padding_that_is_a_word_counts():
    """It is attended to, and audio is padded to its full length."""
    model = make(window=replace(WINDOW, padding="token"))
    features, lengths, words = inputs()
    found = model(features, lengths, words)
    assert found.attention.shape == (2, 4, 8) and found.attention[1, :, 4:].min() > 0
    torch.testing.assert_close(found.attention.sum(2), torch.ones(2, 4, dtype=torch.float64))
    other = model(features, lengths, words.masked_fill(words == PADDING, MASK))
    assert (found.logits[:, :2] - other.logits[:, :2]).abs().max() > 1e-3
    # It is no longer than the window, however the batch is padded, and it is zeros.
    longer = torch.full((2, 24, F), math.nan, dtype=torch.float64)
    longer[0, :20], longer[1, :11] = features[0, :20], features[1, :11]
    torch.testing.assert_close(model(longer, lengths, words).logits, found.logits)


@every
def test_places_are_told_apart_by_positions_alone(positions):
    features, lengths, _ = inputs()
    logits = make(positions)(features, lengths, torch.full((2, 4), MASK)).logits
    difference = (logits - logits[:, :1]).abs().amax((0, 2))  # (W,)
    if positions == "none":
        assert difference.max() < 1e-6
    else:
        assert difference[1:].min() > 1e-3


def test_relative_positions_are_a_bias_of_the_distance():
    """With scores of 0 the attention is the softmax of the biases, counted one by one."""
    model = make("relative", num_blocks=1)
    with torch.no_grad():
        model.blocks[0].to_audio.in_proj_weight.zero_()
        model.blocks[0].to_audio.in_proj_bias.zero_()
    found = model(*inputs()).attention
    assert model.distances.shape == (2, 17)
    for word in range(4):
        rows = []
        for head in range(2):
            # Eight steps and four words: word w is expected at step 2 w + 1.
            biases = [model.distances[head, 8 + step - (2 * word + 1)] for step in range(7)]
            rows.append(torch.stack(biases).softmax(0))
        torch.testing.assert_close(found[0, word], (rows[0] + rows[1]) / 2)
        rest = torch.stack(rows)[:, :4]
        expected = (rest / rest.sum(1, keepdim=True)).mean(0)
        torch.testing.assert_close(found[1, word, :4], expected)


def test_words_hear_the_audio_in_blocks_only():
    features, lengths, words = inputs()
    for num_blocks in (0, 1):
        model = make(num_blocks=num_blocks)
        first, second = (model(x, lengths, words).logits for x in (features, 0 * features))
        assert torch.equal(first, second) == (num_blocks == 0)


def test_words_that_are_given_reach_those_that_are_masked():
    """Through the audio: from the second block on."""
    features, lengths, words = inputs()
    other = words.clone()
    other[0, 2] = 4
    for num_blocks in (1, 2):
        model = make(num_blocks=num_blocks)
        first, second = (model(features, lengths, w).logits[0, 1] for w in (words, other))
        assert torch.equal(first, second) == (num_blocks == 1)


def test_joined_frames_and_skipped_frames():
    features, lengths, words = inputs()
    changed = features.clone()
    changed[:, 1::3] += 1.0
    changed[:, 2::3] -= 1.0
    for join in ("stack", "skip"):
        model = make(window=replace(WINDOW, frame_join=join))
        first, second = (model(x, lengths, words).logits for x in (features, changed))
        assert torch.equal(first, second) == (join == "skip")


@every
@pytest.mark.parametrize("spelling", [True, False])
def test_all_parameters_learn(positions, spelling):
    model = make(positions, spelling=spelling)
    found = model(*inputs())
    (found.logits[..., 3].sum() + found.frames[..., 4].sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_words_are_their_pieces_and_something_of_their_own():
    assert pieces_of("DO") == ["<", "D", "O", ">", "<D", "DO", "O>", "<DO", "DO>"]
    table = WordTable(VOCAB, 6, True)
    numbers = {}
    for word in VOCAB:
        for piece in pieces_of(word):
            numbers.setdefault(piece, len(numbers))
    assert len(table.pieces) == len(numbers)
    found = table()
    assert found.shape == (V + 1, 6)
    for n, word in enumerate(VOCAB):
        own = [table.pieces[numbers[piece]] for piece in pieces_of(word)]
        expected = table.own[n] + sum(own) / math.sqrt(len(own))
        torch.testing.assert_close(found[n], expected)
    assert torch.equal(found[MASK], table.own[MASK])
    # What is learnt of BALL is learnt of CALL, not of DO.
    found[4].sum().backward()
    learnt = torch.zeros(V)
    for n, word in enumerate(VOCAB):
        learnt[n] = sum(float(table.pieces.grad[numbers[p]].sum()) for p in set(pieces_of(word)))
    assert learnt[5] > 2 * learnt[6]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"window_model\.dim is 9; it must be even and a"):
        WindowModelOptions(dim=9)
    with pytest.raises(UserError, match="must be even and a multiple of num_heads, 5"):
        WindowModelOptions(num_heads=5)
