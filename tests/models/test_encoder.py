"""What every encoder promises, for each kind and each subsampling factor."""

import copy

import pytest
import torch

from plateau.config import UserError, resolve
from plateau.models.blstm import BlstmOptions
from plateau.models.conformer import ConformerOptions
from plateau.models.encoder import EncoderOptions, build_encoder

NUM_FEATURES = 10
LENGTHS = [37, 5, 24, 1]


def make(kind, factor, dropout=0.1):
    torch.manual_seed(0)
    options = EncoderOptions(
        kind=kind,
        conformer=ConformerOptions(
            dim=16,
            num_layers=2,
            feedforward_dim=32,
            conv_kernel=5,
            dropout=dropout,
            subsampling=factor,
            subsampling_channels=4,
        ),
        blstm=BlstmOptions(
            dim=8, num_layers=2, dropout=dropout, subsampling=factor, subsampling_channels=4
        ),
    )
    return build_encoder(NUM_FEATURES, options)


def batch(dtype=torch.float32):
    torch.manual_seed(1)
    features = torch.randn(len(LENGTHS), max(LENGTHS), NUM_FEATURES, dtype=dtype)
    return features, torch.tensor(LENGTHS)


every = pytest.mark.parametrize(
    "kind, factor", [(k, f) for k in ("conformer", "blstm") for f in (2, 4, 6)]
)


@every
def test_padding_does_not_change_values_or_gradients(kind, factor):
    """Each utterance in a batch, padded with huge values, and by itself, in float64."""
    model = make(kind, factor).double().eval()
    features, lengths = batch(torch.float64)
    for n, length in enumerate(LENGTHS):
        features[n, length:] = 1e6
    features = torch.cat([features, torch.full_like(features, -1e6)], dim=1).requires_grad_()
    together, new_lengths = model(features, lengths)
    weights = torch.randn_like(together)
    for n, length in enumerate(LENGTHS):
        alone = features[n : n + 1, :length].detach().requires_grad_()
        expected, (new_length,) = model(alone, torch.tensor([length]))
        assert new_length == new_lengths[n] == expected.shape[1]
        torch.testing.assert_close(together[n, :new_length], expected[0], rtol=1e-9, atol=1e-9)
        assert torch.equal(together[n, new_length:], torch.zeros_like(together[n, new_length:]))

        (expected[0] * weights[n, :new_length]).sum().backward()
        score = (together[n] * weights[n]).sum()
        (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
        torch.testing.assert_close(gradient[n, :length], alone.grad[0], rtol=1e-8, atol=1e-9)
        assert alone.grad.abs().sum() > 0
        # Nothing from this utterance's padding, nothing from the others.
        gradient[n, :length] = 0
        assert not gradient.any()


@every
def test_padding_does_not_change_gradients_of_parameters(kind, factor):
    model = make(kind, factor).double().eval()
    features, lengths = batch(torch.float64)
    more = torch.cat([features, torch.full_like(features, 1e6)], dim=1)
    gradients = []
    for x in (features, more):
        y, _ = model(x, lengths)
        gradients.append(torch.autograd.grad((y**3).sum(), list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@every
def test_order_in_the_batch_is_kept(kind, factor):
    model = make(kind, factor).double().eval()
    features, lengths = batch(torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    y, new = model(features, lengths)
    z, new_z = model(features[order], lengths[order])
    torch.testing.assert_close(z, y[order])
    assert torch.equal(new_z, new[order])


@every
def test_every_output_frame_sees_the_whole_utterance(kind, factor):
    model = make(kind, factor).double().eval()
    features = torch.randn(1, 31, NUM_FEATURES, dtype=torch.float64, requires_grad=True)
    y, (length,) = model(features, torch.tensor([31]))
    for t in range(length):
        score = (y[0, t] * torch.randn(model.output_dim, dtype=torch.float64)).sum()
        (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
        assert (gradient[0].abs().sum(dim=1) > 0).all()


@every
def test_lengths_and_shapes(kind, factor):
    model = make(kind, factor).eval()
    assert model.subsampling_factor == factor
    for length in range(1, 51):
        y, new = model(torch.randn(1, length, NUM_FEATURES), torch.tensor([length]))
        assert y.shape == (1, model.output_lengths(length), model.output_dim)
        assert new.tolist() == [model.output_lengths(length)] == [-(-length // factor)]
        assert y.isfinite().all()
    assert model.output_lengths(torch.tensor([1, 12, 13])).tolist() == [
        model.output_lengths(n) for n in (1, 12, 13)
    ]


@every
def test_the_last_layer_is_the_output(kind, factor):
    model = make(kind, factor).eval()
    features, lengths = batch()
    expected, new = model(features, lengths)
    y, new_y, (first, second) = model.forward_layers(features, lengths, (2, 2))
    assert torch.equal(y, expected) and torch.equal(new_y, new)
    assert torch.equal(first, second)
    for n, length in enumerate(new):
        assert torch.equal(first[n, :length], expected[n, :length])
    assert model.forward_layers(features, lengths)[2] == []


@every
def test_layers_that_are_not_there(kind, factor):
    model = make(kind, factor)
    model.check_layers(())
    model.check_layers((2, 2))
    for layers in ((3,), (0,), (2, -1)):
        with pytest.raises(UserError, match=f"not .*{layers[-1]}"):
            model.check_layers(layers)


@every
def test_state_dict_round_trip(kind, factor):
    model = make(kind, factor).eval()
    torch.manual_seed(5)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    features, lengths = batch()
    expected, _ = model(features, lengths)
    assert not torch.equal(other(features, lengths)[0], expected)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(features, lengths)[0], expected)


@every
def test_training_is_random_only_through_dropout(kind, factor):
    features, lengths = batch()
    model = make(kind, factor, dropout=0.0).train()
    expected, _ = model(features, lengths)
    assert torch.equal(model(features, lengths)[0], expected)
    assert torch.equal(model.eval()(features, lengths)[0], expected)
    model = make(kind, factor, dropout=0.5).train()
    torch.manual_seed(3)
    expected, _ = model(features, lengths)
    assert not torch.equal(model(features, lengths)[0], expected)
    torch.manual_seed(3)
    assert torch.equal(model(features, lengths)[0], expected)


@every
def test_bfloat16_autocast(kind, factor):
    model = make(kind, factor, dropout=0.0)
    features, lengths = batch()
    expected, _ = model(features, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, new_lengths = model(features, lengths)
        loss = y.float().square().mean()
    loss.backward()
    assert new_lengths.tolist() == [model.output_lengths(n) for n in LENGTHS]
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every
def test_gpu_agrees_with_cpu_under_autocast(kind, factor, dtype):
    model = make(kind, factor, dropout=0.0)
    features, lengths = batch()
    expected, _ = model(features, lengths)
    model.cuda()
    with torch.autocast("cuda", dtype=dtype):
        y, _ = model(features.cuda(), lengths.cuda())
        loss = y.float().square().mean()
    loss.backward()
    torch.testing.assert_close(y.float().cpu(), expected, rtol=0.1, atol=0.1)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_options_from_the_command_line():
    options = resolve(
        EncoderOptions,
        {"conformer": {"dim": 32}},
        ["kind=blstm", "blstm.subsampling=6", "conformer.num_layers=3"],
    )
    assert options == EncoderOptions(
        "blstm", ConformerOptions(dim=32, num_layers=3), BlstmOptions(subsampling=6)
    )
    with pytest.raises(UserError):
        resolve(EncoderOptions, {}, ["conformer.subsampling=3"])
