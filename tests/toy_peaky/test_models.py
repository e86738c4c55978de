import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

pytest.importorskip("k2")

from toy_peaky.models import initial_parameters, make_model
from toy_peaky.options import Options

INPUTS = torch.tensor([[0, 0, 2, 1, 2, 2], [1, 2, 0, 0, 0, 0], [2, 0, 1, 1, 0, 0]])  # padded with 0
LENGTHS = torch.tensor([6, 2, 4])
NUM_RUNS, NUM_FRAMES, NUM_LABELS = 3, 6, 3
GENERATOR = torch.Generator().manual_seed(9)


def make(**options):
    """The options of a network with 2 classes, the model, and random parameters of each run."""
    options = Options(classes=2, input="0 0 2 1 2 2", init="normal", rnd_scale=0.7, **options)
    model = make_model(options, INPUTS, LENGTHS)
    runs = [initial_parameters(options, model.shapes, seed) for seed in range(NUM_RUNS)]
    return model, {name: torch.stack([run[name] for run in runs]) for name in model.shapes}


def linear(parameters, run, name, bias):
    """The layer of torch with a run's parameters."""
    layer = torch.nn.Linear(*parameters[name].shape[1:], bias=bias).double()
    layer.weight.data = parameters[name][run].T
    if bias:
        layer.bias.data = parameters[name.replace("weight", "bias")][run].flatten()
    return layer


def one_hot(run):
    return torch.nn.functional.one_hot(INPUTS[run], NUM_LABELS).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_linear_and_ffnn_are_those_of_torch(num_layers, bias):
    if num_layers:
        model, parameters = make(model="ffnn", num_layers=num_layers, hidden_dim=5, bias=bias)
    else:
        model, parameters = make(model="linear", bias=bias)
    assert len(parameters) == (num_layers + 1) * (1 + bias)
    logits = model.logits(parameters)
    for run in range(NUM_RUNS):
        layers = []
        for layer in range(num_layers):
            layers += [linear(parameters, run, f"weight{layer}", bias), torch.nn.ReLU()]
        network = torch.nn.Sequential(*layers, linear(parameters, run, "weight", bias))
        torch.testing.assert_close(logits[run], network(one_hot(run)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_blstm_is_that_of_torch(num_layers, bias):
    hidden = 4
    model, parameters = make(model="blstm", num_layers=num_layers, hidden_dim=hidden, bias=bias)
    parameters = {name: values.requires_grad_() for name, values in parameters.items()}
    logits = model.logits(parameters)
    assert logits.shape == (NUM_RUNS, NUM_FRAMES, NUM_LABELS)
    for run, length in enumerate(LENGTHS.tolist()):
        lstm = torch.nn.LSTM(NUM_LABELS, hidden, num_layers, bias, True, bidirectional=True)
        lstm = lstm.double()
        for layer in range(num_layers):
            for direction, suffix in enumerate(["", "_reverse"]):
                copied = {f"weight_ih_l{layer}{suffix}": parameters[f"input{layer}"]}
                copied[f"weight_hh_l{layer}{suffix}"] = parameters[f"recurrent{layer}"]
                for name, values in copied.items():
                    getattr(lstm, name).data = values.detach()[run, direction].T
                if bias:  # torch has two of them
                    values = parameters[f"bias{layer}"].detach()[run, direction, 0]
                    getattr(lstm, f"bias_ih_l{layer}{suffix}").data = values
                    getattr(lstm, f"bias_hh_l{layer}{suffix}").data.zero_()
        packed = pack_padded_sequence(
            one_hot(run).unsqueeze(0), torch.tensor([length]), batch_first=True
        )
        hiddens, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
        output = linear(parameters, run, "weight", bias)
        expected = output(hiddens)[0]
        torch.testing.assert_close(logits[run, :length], expected)

        weights = torch.randn(length, NUM_LABELS, generator=GENERATOR, dtype=torch.float64)
        inputs = parameters["input0"]
        (gradient,) = torch.autograd.grad(
            (logits[run, :length] * weights).sum(), inputs, retain_graph=True
        )
        (expected * weights).sum().backward()
        torch.testing.assert_close(gradient[run, 0].T, lstm.weight_ih_l0.grad)
        torch.testing.assert_close(gradient[run, 1].T, lstm.weight_ih_l0_reverse.grad)
        others = [other for other in range(NUM_RUNS) if other != run]
        assert gradient[others].eq(0).all()


def test_mem_bias_and_their_sum():
    values = [torch.randn(shape, generator=GENERATOR) for shape in ((2, 4, 3), (2, 3))]
    lengths = torch.tensor([4, 4])
    for model, expected in {
        "mem": values[0],
        "bias": torch.stack([values[1]] * 4, dim=1),
        "mem+bias": values[0] + values[1][:, None],
    }.items():
        made = make_model(Options(model=model, classes=2), None, lengths)
        parameters = dict(zip(("mem", "bias"), values, strict=True))
        parameters = {name: parameters[name] for name in model.split("+")}
        assert made.shapes == {name: tuple(x.shape[1:]) for name, x in parameters.items()}
        torch.testing.assert_close(made.logits(parameters), expected)


def test_model_free_has_a_parameter_for_each_input_symbol():
    options = Options(model="model_free", input="0 0 1 0")
    model = make_model(options, torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0]]), torch.tensor([4, 2]))
    logits = model.logits({"theta": torch.tensor([[0.5, -2.0], [3.0, 7.0]])})
    assert logits[0].tolist() == [[0.5, -0.5], [0.5, -0.5], [-2, 2], [0.5, -0.5]]
    assert logits[1, :2].tolist() == [[7, -7], [3, -3]]


def test_gen_model_free_has_a_distribution_over_inputs_for_each_label():
    options = Options(model="gen_model_free", input="0 1")
    model = make_model(options, torch.tensor([[0, 1]]), torch.tensor([2]))
    theta = torch.tensor([[0.5, -2.0]], dtype=torch.float64)  # of the label, of blank
    p = model.logits({"theta": theta}).exp()[0]  # p(x_t | s) at (t, s)
    for s, value in enumerate(theta[0].tolist()):
        p_0 = np.exp(value) / (np.exp(value) + np.exp(-value))  # p(x = 0 | s)
        assert p[:, s].tolist() == pytest.approx([p_0, 1 - p_0])


# Initialisation

SHAPES = {"mem": (100, 3), "weight": (3, 3), "hidden": (3, 50), "bias": (3,)}


def draw(seed=0, shapes=SHAPES, **options):
    return initial_parameters(Options(**options), shapes, seed)


def test_zero():
    parameters = draw(init="zero")
    assert {name: tuple(values.shape) for name, values in parameters.items()} == SHAPES
    for values in parameters.values():
        assert values.dtype == torch.float64 and values.eq(0).all()


def test_normal_and_uniform_have_their_scale():
    mem = draw(init="normal", rnd_scale=0.01)["mem"]
    assert mem.std().item() == pytest.approx(0.01, rel=0.1)
    assert mem.mean().item() == pytest.approx(0, abs=0.002)
    assert mem.abs().max() > 0.02  # not uniform
    mem = draw(init="uniform", rnd_scale=0.5)["mem"]
    assert 0.49 < mem.max() <= 0.5 and -0.5 <= mem.min() < -0.49
    assert mem.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.1)


def test_identity_is_for_square_weights():
    parameters = draw(init="identity", shapes={**SHAPES, "bias0": (1, 1)})
    assert parameters["weight"].equal(torch.eye(3, dtype=torch.float64))
    for name in ("mem", "hidden", "bias", "bias0"):
        assert parameters[name].eq(0).all()


def test_a_seed_draws_what_it_drew_in_the_notes():
    random = np.random.RandomState(7)
    random.randint(2**16)
    expected = 0.3 * random.normal(size=(100, 3))
    assert np.allclose(draw(seed=7, init="normal", rnd_scale=0.3)["mem"], expected)
    assert not draw(seed=8, init="normal")["mem"].equal(draw(seed=9, init="normal")["mem"])


def test_the_bias_of_mem_and_bias_starts_at_zero():
    assert draw(init="normal")["bias"].eq(0).all()
    assert draw(init="normal", shapes={"bias": (3,)})["bias"].ne(0).all()


def test_blank_bias_init_is_that_of_the_last_label_alone():
    parameters = draw(init="normal", blank_bias_init=-1.5)
    as_drawn = draw(init="normal")
    for name in ("mem", "bias"):
        assert parameters[name][..., -1].eq(-1.5).all()
        assert parameters[name][..., :-1].equal(as_drawn[name][..., :-1])
    for name in ("weight", "hidden"):
        assert parameters[name].equal(as_drawn[name])
