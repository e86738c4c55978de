"""Joiners of transducers: label probabilities from an encoder's frame and a predictor's output."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateau.models.ctc import INITIAL_BLANK, start_with_blank
from plateau.ranges import SIZE, check_options


@dataclass(frozen=True)
class JoinerOptions:
    """Which joiner, and its size.

    Args:
        kind: additive: softmax over all labels of a linear layer on tanh(encoder + predictor)
            (Graves et al. 2013). separate_blank: log p(blank) = log σ(−e), and for other labels
            log p(y) = log σ(e) + log_softmax(y) (Variani et al. 2020, "Hybrid autoregressive
            transducer")
        dim: J, of the sum
    """

    kind: Literal["additive", "separate_blank"] = "additive"
    dim: int = 256

    def __post_init__(self) -> None:
        check_options(self, "joiner", dim=SIZE)


class Joiner(nn.Module):
    """See `JoinerOptions`.

    Encoder and predictor are projected once for each frame and each label, by ``encoder`` and
    ``predictor``; the joiner itself takes the projections.

    Args:
        encoder_dim: D.
        predictor_dim: P.
        vocab_size: V, number of labels with the blank, which is label 0.
        options: kind and size.
    """

    def __init__(
        self, encoder_dim: int, predictor_dim: int, vocab_size: int, options: JoinerOptions
    ) -> None:
        super().__init__()
        self.separate_blank = options.kind == "separate_blank"
        self.encoder = nn.Linear(encoder_dim, options.dim)
        self.predictor = nn.Linear(predictor_dim, options.dim, bias=False)
        self.output = start_with_blank(nn.Linear(options.dim, vocab_size))
        if self.separate_blank:
            with torch.no_grad():
                self.output.bias[0] = math.log((1 - INITIAL_BLANK) / INITIAL_BLANK)

    def forward(self, encoder: Tensor, predictor: Tensor) -> Tensor:
        """Log-probabilities (…, V), float32, of projections (…, J) that broadcast."""
        logits = self.output(torch.tanh(encoder + predictor)).float()
        if not self.separate_blank:
            return logits.log_softmax(-1)
        emit, labels = logits[..., :1], logits[..., 1:]
        return torch.cat([F.logsigmoid(-emit), F.logsigmoid(emit) + labels.log_softmax(-1)], dim=-1)
