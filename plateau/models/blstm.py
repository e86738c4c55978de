"""A bidirectional LSTM encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from plateau.config import UserError
from plateau.models.subsampling import ConvSubsampling, Lengths
from plateau.ranges import PROBABILITY, SIZE, at_least, check_options


@dataclass(frozen=True)
class BlstmOptions:
    """Size and regularisation of a BLSTM."""

    dim: int = 256  # cells in each direction; the output has twice as many dimensions
    num_layers: int = 3  # bidirectional layers
    dropout: float = 0.1  # probability, on the input of each layer
    subsampling: Literal[2, 4, 6] = 4  # input frames for each frame of the encoder
    subsampling_channels: int = 32  # of the subsampling's convolutions

    def __post_init__(self) -> None:
        check_options(
            self,
            "encoder.blstm",
            dim=SIZE,
            num_layers=at_least(1, 1000),
            dropout=PROBABILITY,
            subsampling_channels=SIZE,
        )


class Blstm(nn.Module):
    """Convolutional subsampling and bidirectional LSTM layers (Graves & Schmidhuber 2005).

    Sequences are packed, so that the backward direction starts at an utterance's own last frame.

    Args:
        num_features: F, the input dimension.
        options: size and regularisation.
    """

    def __init__(self, num_features: int, options: BlstmOptions) -> None:
        super().__init__()
        self.output_dim = 2 * options.dim
        self.subsampling_factor = options.subsampling
        self.subsampling = ConvSubsampling(
            num_features, options.dim, options.subsampling, options.subsampling_channels
        )
        self.dropout = nn.Dropout(options.dropout)
        self.lstm = nn.LSTM(
            options.dim,
            options.dim,
            options.num_layers,
            batch_first=True,
            bidirectional=True,
            dropout=options.dropout if options.num_layers > 1 else 0.0,
        )

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Frames after subsampling, of an int or a tensor of ints."""
        return self.subsampling.output_lengths(lengths)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode features (N, T, F), lengths (N,) ≥ 1 → (N, T', D) with zeros as padding, (N,)."""
        x, lengths = self.subsampling(features, lengths)  # (N, T', dim)
        packed = pack_padded_sequence(
            self.dropout(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        packed, _ = self.lstm(packed)
        x, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return x, lengths  # (N, T', 2 dim)

    def forward_layers(
        self, features: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Like `forward`, and the output (N, T', D) of the last layer as often as asked for."""
        x, lengths = self.forward(features, lengths)
        return x, lengths, [x for _ in layers]

    def check_layers(self, layers: Sequence[int]) -> None:
        """Find out whether the outputs of these layers can be had: that of the last one can.

        Raises:
            UserError: no.
        """
        last = self.lstm.num_layers
        if any(layer != last for layer in layers):
            raise UserError(f"a BLSTM shows its last layer only, {last}, not {list(layers)}")
