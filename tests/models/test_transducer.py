import pytest
import torch
from torch import nn

from plateau.config import UserError
from plateau.models.blstm import BlstmOptions
from plateau.models.conformer import ConformerOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel

NUM_FEATURES, V, J = 8, 9, 11
LENGTHS = torch.tensor([21, 9, 14])
TARGETS = [[1, 2, 2], [8], [3, 4]]
TOKENS = torch.tensor([[1, 2, 2], [8, 0, 0], [3, 4, 0]])

every = pytest.mark.parametrize("encoder", ["conformer", "blstm"])
every_predictor = pytest.mark.parametrize("predictor", ["stateless", "lstm"])


def make(
    encoder="conformer", predictor="stateless", ctc_layers=(), num_layers=3, joiner="additive"
):
    torch.manual_seed(0)
    return TransducerModel(
        NUM_FEATURES,
        V,
        EncoderOptions(
            kind=encoder,
            conformer=ConformerOptions(
                dim=16,
                num_layers=num_layers,
                feedforward_dim=32,
                conv_kernel=5,
                subsampling=2,
                subsampling_channels=4,
            ),
            blstm=BlstmOptions(dim=8, num_layers=num_layers, subsampling=2, subsampling_channels=4),
        ),
        PredictorOptions(kind=predictor, dim=10),
        JoinerOptions(kind=joiner, dim=J),
        ctc_layers,
    )


def batch(dtype=torch.float32):
    torch.manual_seed(1)
    return torch.randn(3, 21, NUM_FEATURES, dtype=dtype)


@every
@every_predictor
def test_shapes(encoder, predictor):
    model = make(encoder, predictor, ctc_layers=(3,)).eval()
    output = model(batch(), LENGTHS, TOKENS)
    T = model.output_lengths(21)
    assert T == 11
    assert output.lengths.tolist() == [model.output_lengths(n) for n in LENGTHS.tolist()]
    assert output.encoder.shape == (3, T, J)
    assert output.predictor.shape == (3, 4, J)
    assert output.am.shape == (3, T, V)
    assert output.lm.shape == (3, 4, V)
    assert {layer: x.shape for layer, x in output.ctc.items()} == {3: (3, T, V)}
    torch.testing.assert_close(output.ctc[3].exp().sum(-1), torch.ones(3, T))


@every
@every_predictor
def test_what_decoding_sees_is_what_was_trained(encoder, predictor):
    model = make(encoder, predictor).eval()
    output = model(batch(), LENGTHS, TOKENS)
    encoded, lengths = model.encode(batch(), LENGTHS)
    assert torch.equal(lengths, output.lengths)
    assert torch.equal(encoded, output.encoder)
    state = model.predictor.start(3)
    for u in range(4):
        said = model.joiner.predictor(model.predictor.output(state))
        torch.testing.assert_close(said, output.predictor[:, u])
        if u < 3:
            state = model.predictor.advance(state, TOKENS[:, u])


@every
@every_predictor
def test_padding_and_company_change_nothing(encoder, predictor):
    layers = (3,) if encoder == "blstm" else (1, 3)
    model = make(encoder, predictor, ctc_layers=layers).double().eval()
    features, tokens = batch(torch.float64), TOKENS.clone()
    for n, (length, target) in enumerate(zip(LENGTHS.tolist(), TARGETS, strict=True)):
        features[n, length:] = 1e4
        tokens[n, len(target) :] = 5
    together = model(features, LENGTHS, tokens)
    for n, target in enumerate(TARGETS):
        length = LENGTHS[n : n + 1]
        alone = model(features[n : n + 1, : int(length)], length, tokens[n : n + 1, : len(target)])
        T, U = int(alone.lengths), len(target)
        assert together.lengths[n] == T
        pairs = [(together.encoder, alone.encoder, T), (together.am, alone.am, T)]
        pairs += [(together.predictor, alone.predictor, U + 1), (together.lm, alone.lm, U + 1)]
        pairs += [(together.ctc[layer].double(), alone.ctc[layer].double(), T) for layer in layers]
        for a, b, size in pairs:
            assert b.shape[1] == size
            torch.testing.assert_close(a[n, :size], b[0], rtol=1e-6, atol=1e-6)


def test_inner_ctc_outputs_are_those_of_fewer_blocks():
    model = make(ctc_layers=(1, 3, 2)).eval()
    output = model(batch(), LENGTHS, TOKENS)
    assert list(output.ctc) == [1, 3, 2]
    blocks = model.encoder.blocks
    for layer in (1, 2, 3):
        model.encoder.blocks = blocks[:layer]
        encoded, lengths = model.encoder(model.norm(batch()), LENGTHS)
        expected = model.ctc[str(layer)](encoded).log_softmax(-1)
        for n, length in enumerate(lengths):
            torch.testing.assert_close(output.ctc[layer][n, :length], expected[n, :length])


@pytest.mark.parametrize(
    ("encoder", "layers", "said"),
    [
        ("conformer", (4,), "layers 1 to 3, not 4"),
        ("conformer", (3, 0), "layers 1 to 3, not 0"),
        ("conformer", (-1,), "layers 1 to 3, not -1"),
        ("blstm", (3, 2), "last layer only, 3"),
    ],
)
def test_layers_that_are_not_there(encoder, layers, said):
    with pytest.raises(UserError, match=said):
        make(encoder, ctc_layers=layers)


def test_ctc_layers_exist_only_when_asked_for():
    plain, asked = make(), make(ctc_layers=(2,))
    assert not any("ctc" in name for name, _ in plain.named_parameters())
    more = {name for name, _ in asked.named_parameters()} - {
        name for name, _ in plain.named_parameters()
    }
    assert more == {"ctc.2.weight", "ctc.2.bias"}


def losses(model, targets=TARGETS, tokens=TOKENS):
    """Simple, pruned and CTC losses, together."""
    from plateau.graphs.ctc import ctc_loss
    from plateau.graphs.transducer import pruned_loss, simple_loss

    output = model(batch(), LENGTHS, tokens)
    simple, ranges = simple_loss(output.am, output.lm, targets, output.lengths, prune_range=2)
    pruned = pruned_loss(
        output.encoder, output.predictor, model.joiner, ranges, targets, output.lengths
    )
    total = simple + pruned
    for log_probs in output.ctc.values():
        total = total + ctc_loss(log_probs, output.lengths, targets)
    return total


@every
@every_predictor
@pytest.mark.parametrize("joiner", ["additive", "separate_blank"])
def test_all_parameters_learn(encoder, predictor, joiner):
    layers = (3,) if encoder == "blstm" else (1, 2)
    model = make(encoder, predictor, layers, joiner=joiner).train()
    losses(model).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@every
def test_gradients_against_finite_differences(encoder):
    """In one direction of all parameters, through all losses: the whole chain."""
    model = make(encoder, ctc_layers=(3,)).eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.manual_seed(2)
    directions = [torch.randn_like(p) for p in parameters]
    losses(model).sum().backward()
    slope = sum((p.grad * d).sum().item() for p, d in zip(parameters, directions, strict=True))

    def moved(step):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step)
            total = losses(model).sum().item()
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=step)
        return total

    step = 3e-4
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=0.01, abs=0.05)


def test_it_learns_a_few_utterances():
    """By the losses that have floors (simple, inner CTC), the full one gets near to zero."""
    from plateau.graphs.transducer import full_loss

    model = make(ctc_layers=(2,)).eval()  # without dropout
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def full():
        with torch.no_grad():
            output = model(batch(), LENGTHS, TOKENS)
            log_probs = model.joiner(output.encoder.unsqueeze(2), output.predictor.unsqueeze(1))
            return full_loss(log_probs, TARGETS, output.lengths)

    assert full().sum() > 15
    for _ in range(100):
        optimizer.zero_grad()
        losses(model).sum().backward()
        optimizer.step()
    assert full().sum() < 0.5


def test_bfloat16_autocast():
    model = make(ctc_layers=(1,)).eval()
    expected = losses(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch(), LENGTHS, TOKENS)
        assert output.encoder.dtype == torch.bfloat16  # autocast is at work
        assert output.ctc[1].dtype == torch.float32
        total = losses(model)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=0.02, atol=0.2)
    total.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_steps_are_in_the_checkpoint():
    model, other = make(), make()
    model.steps += 7
    other.load_state_dict(model.state_dict())
    assert int(other.steps) == 7
    assert not isinstance(model.steps, nn.Parameter)
