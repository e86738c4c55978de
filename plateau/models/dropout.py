"""Dropout whose mask is cheap to draw on a CPU."""

import torch
import torch.nn.functional as F
from torch import nn


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014), on CPU with a mask drawn from random bytes.

    `torch.nn.Dropout` can be slow on CPU: on the AMD processor where this was measured it took a
    fifth of the training step of a small Conformer on one core. Here one 64-bit random number
    decides for eight elements. On CPU, ``p`` is rounded to a multiple of 1/256; the scale of what
    is kept uses the rounded value, so the expectation is exact. On other devices this is
    `torch.nn.Dropout`.

    Args:
        p: the probability that an element becomes zero, 0 ≤ p < 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability {p} is not in [0, 1)")
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop elements of ``x`` (any shape) in training mode; give it back as it is otherwise."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = min(round(256 * self.p), 255)  # of 256 byte values
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        bytes_ = words.view(torch.uint8)[: x.numel()].view(x.shape)
        mask = torch.ge(bytes_, dropped, out=torch.empty(x.shape, dtype=x.dtype))
        return x * mask.mul_(256 / (256 - dropped))

    def extra_repr(self) -> str:
        """``p`` in the printed module."""
        return f"p={self.p}"
