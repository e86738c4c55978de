"""An encoder with a CTC output layer."""

import math

import torch
from torch import nn

from plateau.models.encoder import EncoderOptions, build_encoder
from plateau.models.normalise import GlobalNorm
from plateau.models.prior import LabelPrior, PriorOptions
from plateau.models.subsampling import Lengths

INITIAL_BLANK = 0.8  # probability of blank before training, about


def start_with_blank(output: nn.Linear) -> nn.Linear:
    """Let an output layer over V labels begin with blank at `INITIAL_BLANK`.

    Blank starts as likely as it becomes anyway in the first steps of CTC, where it is in the most
    alignments (Zeyer et al. 2021, arXiv:2105.14849). Started at random, a model of few labels may
    end with a token in blank's place, and then two equal words become one.
    """
    nn.init.zeros_(output.bias)
    with torch.no_grad():
        odds = INITIAL_BLANK / (1 - INITIAL_BLANK)
        output.bias[0] = math.log(odds * (output.out_features - 1))
    return output


class CtcModel(nn.Module):
    """Normalisation, encoder, linear layer, log-softmax (Graves et al. 2006).

    Args:
        num_features: F, the input dimension.
        vocab_size: V, number of labels with the blank, which is label 0.
        encoder: which encoder.
        prior: which label prior the model keeps for its loss; ``model.prior`` is None without one.
    """

    def __init__(
        self,
        num_features: int,
        vocab_size: int,
        encoder: EncoderOptions,
        prior: PriorOptions | None = None,
    ) -> None:
        super().__init__()
        self.norm = GlobalNorm(num_features)
        self.encoder = build_encoder(num_features, encoder)
        self.output = start_with_blank(nn.Linear(self.encoder.output_dim, vocab_size))
        wanted = prior is not None and prior.estimator != "none"
        self.prior = LabelPrior(vocab_size, prior) if wanted else None
        # Steps of training; the loss changes with it, and it is in the checkpoint.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Frames of the log-probabilities, of an int or a tensor of ints."""
        return self.encoder.output_lengths(lengths)

    def encode(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode features (N, T, F), lengths (N,) ≥ 1 → (N, T', D), (N,)."""
        return self.encoder(self.norm(features), lengths)

    def scores(self, encoder_out: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (N, T', V) of the labels, float32, also under autocast."""
        return self.output(encoder_out).float().log_softmax(dim=-1)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score features (N, T, F), lengths (N,) ≥ 1 → log-probabilities (N, T', V), (N,).

        Frames beyond an utterance's length hold the distribution of a zero encoder output; no loss
        may count them.
        """
        encoder_out, lengths = self.encode(features, lengths)  # (N, T', D)
        return self.scores(encoder_out), lengths
