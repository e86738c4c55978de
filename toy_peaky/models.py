"""The toy models: logits (R, T, V) from parameters, for R runs at once.

Every parameter has the runs as its first dimension, so that runs in one batch share nothing.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from toy_peaky.options import Options

Parameters = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


class Model:
    """A model: the shapes of one run's parameters, and its logits."""

    shapes: Shapes

    def logits(self, parameters: Parameters) -> Tensor:
        """Logits (R, T, V) from parameters (R, …)."""
        raise NotImplementedError


class Memory(Model):
    """``mem``, ``bias`` or both: logits that depend on the frame's number, or not even on it."""

    def __init__(self, names: Sequence[str], num_frames: int, num_labels: int):
        shapes: Shapes = {"mem": (num_frames, num_labels), "bias": (num_labels,)}
        self.shapes = {name: shapes[name] for name in names}
        self._num_frames = num_frames

    def logits(self, parameters: Parameters) -> Tensor:
        """See `Model.logits`."""
        mem, bias = parameters.get("mem"), parameters.get("bias")
        if bias is None:
            return parameters["mem"]
        bias = bias.unsqueeze(1)  # (R, 1, V)
        return bias.expand(-1, self._num_frames, -1) if mem is None else mem + bias


class Network(Model):
    """``linear``, ``ffnn`` or ``blstm``: reads the input, one-hot (R, T, V), T padded.

    Args:
        inputs: labels (R, T).
        lengths: (R,), frames that count.
    """

    def __init__(self, options: Options, inputs: Tensor, lengths: Tensor):
        num_labels = options.num_labels
        self._one_hot = torch.nn.functional.one_hot(inputs, num_labels).double()
        self._lengths = lengths
        self._num_hidden = 0 if options.model == "linear" else options.num_layers
        self._recurrent = options.model == "blstm"
        size, hidden = num_labels, options.hidden_dim
        self.shapes = {}
        for layer in range(self._num_hidden):
            if self._recurrent:  # both directions, which are the first dimension
                self.shapes[f"input{layer}"] = (2, size, 4 * hidden)
                if options.bias:
                    self.shapes[f"bias{layer}"] = (2, 1, 4 * hidden)
                self.shapes[f"recurrent{layer}"] = (2, hidden, 4 * hidden)
                size = 2 * hidden
            else:
                self.shapes[f"weight{layer}"] = (size, hidden)
                if options.bias:
                    self.shapes[f"bias{layer}"] = (1, hidden)
                size = hidden
        self.shapes["weight"] = (size, num_labels)
        if options.bias:
            self.shapes["bias"] = (1, num_labels)

    def logits(self, parameters: Parameters) -> Tensor:
        """See `Model.logits`."""
        x = self._one_hot  # (R, T, V)
        for layer in range(self._num_hidden):
            bias = parameters.get(f"bias{layer}", 0.0)
            if self._recurrent:
                x = _blstm(
                    x,
                    self._lengths,
                    parameters[f"input{layer}"],
                    bias,
                    parameters[f"recurrent{layer}"],
                )  # (R, T, 2 * hidden)
            else:
                x = torch.relu(x @ parameters[f"weight{layer}"] + bias)  # (R, T, hidden)
        return x @ parameters["weight"] + parameters.get("bias", 0.0)


def _blstm(
    x: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor | float, recurrent: Tensor
) -> Tensor:
    """A bidirectional LSTM layer with weights for each run.

    Args:
        x: (R, T, D).
        lengths: (R,). The backward direction starts at each run's last frame.
        weight: (R, 2, D, 4 H), for both directions; gates are input, forget, cell, output.
        bias: (R, 2, 1, 4 H).
        recurrent: (R, 2, H, 4 H).

    Returns:
        (R, T, 2 H).
    """
    num_runs, num_frames, _ = x.shape
    t = torch.arange(num_frames)
    turned = (lengths.unsqueeze(1) - 1 - t) % num_frames  # (R, T): backwards; it undoes itself
    runs = torch.arange(num_runs).unsqueeze(1)
    both = torch.stack([x, x[runs, turned]], dim=1)  # (R, 2, T, D)
    gates = (both @ weight + bias).flatten(0, 1)  # (2 R, T, 4 H)
    recurrent = recurrent.flatten(0, 1)  # (2 R, H, 4 H)
    hidden = cell = gates.new_zeros(2 * num_runs, 1, recurrent.shape[1])
    outputs = []
    for frame in gates.unbind(1):
        i, f, g, o = torch.baddbmm(frame.unsqueeze(1), hidden, recurrent).chunk(4, dim=2)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        outputs.append(hidden)
    output = torch.cat(outputs, dim=1).unflatten(0, (num_runs, 2))  # (R, 2, T, H)
    return torch.cat([output[:, 0], output[:, 1][runs, turned]], dim=2)


class ModelFree(Model):
    """``model_free``: logits [θ_x, −θ_x] for input symbol x. Zeyer et al. 2021.

    ``gen_model_free``: a label s gives input symbols with p(· | s) = softmax([θ_s, −θ_s]); the
    logits are log p(x_t | s).
    """

    def __init__(self, options: Options, inputs: Tensor):
        self._generative = options.model == "gen_model_free"
        self._inputs = inputs
        self.shapes = {"theta": (options.num_labels,)}

    def logits(self, parameters: Parameters) -> Tensor:
        """See `Model.logits`."""
        theta = parameters["theta"]  # (R, V)
        table = torch.stack([theta, -theta], dim=-1)  # (R, V, 2): of symbol x and label, or label s
        if self._generative:
            table = table.log_softmax(-1).transpose(1, 2)  # (R, x, s)
        return table[torch.arange(len(theta)).unsqueeze(1), self._inputs]  # (R, T, V)


def make_model(options: Options, inputs: Tensor | None, lengths: Tensor) -> Model:
    """The model of that name; ``inputs`` (R, T) and ``lengths`` (R,) are what it reads."""
    if inputs is None or options.model in ("bias", "mem", "mem+bias"):
        return Memory(options.model.split("+"), int(lengths.max()), options.num_labels)
    if options.model.endswith("model_free"):
        return ModelFree(options, inputs)
    return Network(options, inputs, lengths)


def initial_parameters(options: Options, shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """One run's parameters at the start, float64.

    Seeds give the same numbers as in the notes' script, which also spends a draw before the first
    parameter and starts the bias of mem+bias at zero.
    """
    random = np.random.RandomState(seed)
    random.randint(2**16)
    draw: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
        "zero": np.zeros,
        "normal": lambda shape: random.normal(scale=options.rnd_scale, size=shape),
        "uniform": lambda shape: random.uniform(-options.rnd_scale, options.rnd_scale, shape),
        "identity": lambda shape: (
            # A bias of one unit is (1, 1), too.
            np.eye(*shape) if len(shape) == 2 and shape[0] == shape[1] > 1 else np.zeros(shape)
        ),
    }
    parameters = {}
    for name, shape in shapes.items():
        beside_mem = name == "bias" and "mem" in shapes
        values = np.zeros(shape) if beside_mem else draw[options.init](shape)
        if options.blank_bias_init is not None and name in ("mem", "bias"):
            values[..., -1] = options.blank_bias_init
        parameters[name] = torch.from_numpy(values)
    return parameters
