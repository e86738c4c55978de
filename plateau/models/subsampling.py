"""Convolutional subsampling in time, and the mask of padding that all encoders share."""

from typing import TypeVar

import torch
from torch import nn

Lengths = TypeVar("Lengths", int, torch.Tensor)

STRIDES = {2: (2,), 4: (2, 2), 6: (2, 3)}  # factor → stride of each convolution, time and frequency


def padding_mask(lengths: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Where frames are padding: lengths (N,) → bool (N, num_frames), True beyond the length."""
    return torch.arange(num_frames, device=lengths.device) >= lengths[:, None]


class ConvSubsampling(nn.Module):
    """3 by 3 convolutions with strides over (time, frequency), then a linear layer.

    An utterance of T frames has ceil(T / factor) frames afterwards, whatever the batch around it.
    Output frame t is centred on input frame factor·t. Frames beyond an utterance's length are
    zeros for each convolution, as the frames beyond the edge of the tensor are: how far a batch is
    padded, and with what, cannot change the result.

    Args:
        num_features: F, the input dimension.
        output_dim: D, the output dimension.
        factor: 2, 4 or 6.
        channels: of the convolutions. The cost of all but the first grows with the square: with
            144 channels the second alone costs more than a small encoder.
    """

    def __init__(self, num_features: int, output_dim: int, factor: int, channels: int) -> None:
        super().__init__()
        self.factor = factor
        strides = STRIDES[factor]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else channels, channels, 3, stride, padding=1)
            for i, stride in enumerate(strides)
        )
        # Weights in this format make the convolutions' results (N, T, F, C) in memory: quicker on
        # CPU, and C is next to F for the linear layer without a copy.
        self.convolutions.to(memory_format=torch.channels_last)
        num_bins = -(-num_features // factor)
        self.linear = nn.Linear(num_bins * channels, output_dim)

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Frames after subsampling, ceil(lengths / factor), of an int or a tensor of ints."""
        return (lengths + self.factor - 1) // self.factor

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Subsample features (N, T, F) → (N, T', D), lengths (N,) → (N,), T' = ceil(T / factor).

        Frames of the result beyond an utterance's new length are finite, but mean nothing.
        """
        # Filled, not multiplied: padding may hold anything, infinities and NaN too.
        x = features.masked_fill(padding_mask(lengths, features.shape[1])[..., None], 0)
        x = x.unsqueeze(1)  # (N, 1, T, F)
        for convolution in self.convolutions:
            stride = convolution.stride[0]
            x = convolution(x)  # (N, C, ceil(T / stride), ceil(F / stride))
            lengths = (lengths + stride - 1) // stride
            inside = ~padding_mask(lengths, x.shape[2])[:, None, :, None]
            x = x.mul_(inside.to(x.dtype)).relu_()  # in place: these are the largest tensors
        x = x.permute(0, 2, 3, 1).flatten(2)  # (N, T', F' C)
        return self.linear(x), lengths
