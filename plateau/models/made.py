"""A masked network, whose outputs for a value depend on the values before it only."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedLinear(nn.Linear):
    """A linear layer without the connections where the mask (out, in) is false."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedNetwork(nn.Module):
    """Parameters of p(x_d | x_1 … x_{d-1}, context) for all d at once.

    Germain et al. 2015, "MADE: masked autoencoder for distribution estimation" (arXiv 1502.03509),
    with a context that every layer sees.

    Args:
        context_dim: H.
        sizes: how many parameters each of the D values has.
        hidden_dim: units of each hidden layer; some of them see no value, the others the first,
            the first two, …
        num_layers: hidden layers.
    """

    def __init__(
        self, context_dim: int, sizes: list[int], hidden_dim: int, num_layers: int
    ) -> None:
        super().__init__()
        dim = len(sizes)
        # A unit of degree m sees the first m values (MADE's eqs. 12 and 13, degrees from 0).
        hidden = torch.arange(hidden_dim) % dim
        outputs = torch.arange(dim).repeat_interleave(torch.tensor(sizes))
        degrees = [torch.arange(1, dim + 1), *[hidden] * num_layers, outputs]
        self.layers = nn.ModuleList(
            MaskedLinear(after[:, None] >= before) for before, after in pairwise(degrees)
        )
        self.contexts = nn.ModuleList(
            nn.Linear(context_dim, len(degree), bias=False) for degree in degrees[1:]
        )

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Parameters (…, sum of the sizes) from context (…, H) and values (…, D)."""
        for number, (layer, of_context) in enumerate(zip(self.layers, self.contexts, strict=True)):
            x = layer(x if number == 0 else F.relu(x)) + of_context(context)
        return x
