"""The Conformer encoder (Gulati et al. 2020, arXiv:2005.08100)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from plateau.config import UserError
from plateau.models.dropout import Dropout
from plateau.models.subsampling import ConvSubsampling, Lengths, padding_mask
from plateau.ranges import COUNT, PROBABILITY, SIZE, at_least, check_options


@dataclass(frozen=True)
class ConformerOptions:
    """Size and regularisation of a Conformer."""

    dim: int = 144  # D, width of the residual stream; a multiple of num_heads, even
    num_layers: int = 8  # Conformer blocks
    num_heads: int = 4  # attention heads
    feedforward_dim: int = 576  # hidden units of each of a block's two feed-forward modules
    attention_context: int = 0  # subsampled frames to each side that attention sees; 0: all
    conv_kernel: int = 15  # width of the depthwise convolution in subsampled frames, odd
    identity_start: bool = True  # depthwise convolutions start as the identity, not at random
    dropout: float = 0.1  # probability, on every module's output, hidden units, attention weights
    subsampling: Literal[2, 4, 6] = 4  # input frames for each frame of the encoder
    subsampling_channels: int = 32  # of the subsampling's convolutions

    def __post_init__(self) -> None:
        check_options(
            self,
            "encoder.conformer",
            dim=SIZE,
            num_layers=at_least(1, 1000),
            num_heads=SIZE,
            feedforward_dim=SIZE,
            attention_context=COUNT,
            conv_kernel=at_least(1, 9999),
            dropout=PROBABILITY,
            subsampling_channels=SIZE,
        )
        if self.dim % self.num_heads or self.dim % 2:
            raise UserError(
                f"encoder.conformer.dim is {self.dim}; it must be even and a multiple of "
                f"num_heads, {self.num_heads}"
            )
        if self.conv_kernel % 2 == 0:
            raise UserError(f"encoder.conformer.conv_kernel is {self.conv_kernel}; it must be odd")


def sinusoids(positions: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sinusoidal encodings (…, D) of positions (…), with D, device and type as of ``like`` (…, D).

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, with all sines before all cosines. They
    cost next to nothing and are made anew for each batch, so no utterance is too long.
    """
    dim = like.shape[-1]
    rates = torch.exp(
        torch.arange(0, dim, 2, device=like.device) * (-math.log(10000) / dim)
    )  # (D/2,)
    angles = positions[..., None] * rates  # (…, D/2), float32
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)


def relative_positions(num_frames: int, like: torch.Tensor) -> torch.Tensor:
    """`sinusoids` of the relative positions T, T-1, …, -(T-1): (2T, D).

    R of Dai et al. 2019 (arXiv:1901.02860).
    """
    return sinusoids(torch.arange(num_frames, -num_frames, -1, device=like.device), like)


def relative_shift(scores: torch.Tensor) -> torch.Tensor:
    """From relative to absolute positions of keys: (…, T, 2T) → (…, T, T), a view.

    Column c of the input belongs to relative position T - c; the result's [i, j] is the input's
    score of query i for relative position i - j (Dai et al. 2019, appendix B). Leaving out the
    first T elements and reading rows of 2T - 1 moves each row one further than the row above.
    """
    T = scores.shape[-2]
    return scores.flatten(-2)[..., T:].unflatten(-1, (T, 2 * T - 1))[..., :T]


class LayerNorm(nn.LayerNorm):
    """LayerNorm in the precision of its weights, as autocast has it on GPU but not on CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x (…, D) over its last dimension."""
        return super().forward(x.to(self.weight.dtype))


class RelativeSelfAttention(nn.Module):
    """Multi-head self-attention with relative positions as in Transformer-XL.

    The score of query i for key j is ((q_i + u)·k_j + (q_i + v)·W r_{i-j}) / sqrt(D/H), equation
    in section 3.3 of Dai et al. 2019; u is ``content_bias``, v ``position_bias``. A frame sees
    ``context`` frames to each side, or with 0 all.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, context: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.context = context
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        self.position_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, is_padding: torch.Tensor
    ) -> torch.Tensor:
        """Attend: x (N, T, D), positions (2T, D), is_padding (N, T) → (N, T, D)."""
        heads = (self.num_heads, x.shape[-1] // self.num_heads)
        query, key, value = self.query_key_value(x).unflatten(-1, (3, *heads)).unbind(2)
        # query, key, value: (N, T, H, D/H)
        relative = self.position(positions).unflatten(-1, heads)  # (2T, H, D/H)
        content = torch.einsum("nihd,njhd->nhij", query + self.content_bias, key)
        position = torch.einsum("nihd,chd->nhic", query + self.position_bias, relative)
        scores = (content + relative_shift(position)) * heads[1] ** -0.5  # (N, H, T, T)
        # The least finite number, not -inf: softmax makes the same zeros of it, and none makes NaN.
        hidden = is_padding[:, None, None]  # (N, 1, 1, T)
        if self.context:
            frame = torch.arange(x.shape[1], device=x.device)
            hidden = hidden | ((frame - frame[:, None]).abs() > self.context)  # (N, 1, T, T)
        scores = scores.masked_fill_(hidden, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))
        attended = torch.einsum("nhij,njhd->nihd", weights, value)
        return self.output(attended.flatten(-2))  # (N, T, D)


class ConvolutionModule(nn.Module):
    """Pointwise convolution, gated linear unit, depthwise convolution, norm, Swish, pointwise.

    The paper has BatchNorm after the depthwise convolution. Its statistics would depend on how
    much padding a batch has and on which utterances share it, and differ between training and
    evaluation; LayerNorm over the channels of a frame depends on that frame alone.

    A depthwise convolution that starts at random starts with a shift in time. Neither the full sum
    nor an encoder that sees everything minds, so the model keeps it: on espeak all words came up to
    80 ms late. From the identity, labels are found where they are said, and sooner.
    """

    def __init__(self, dim: int, kernel: int, identity_start: bool) -> None:
        super().__init__()
        self.pointwise_in = nn.Linear(dim, 2 * dim)
        # Over (N, D, 1, T): as a 2-D convolution it takes D as the innermost dimension in memory
        # (channels_last), which is how x lies there; nn.Conv1d would copy, and is slower on CPU.
        self.depthwise = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim)
        if identity_start:
            with torch.no_grad():
                self.depthwise.weight.zero_()[..., kernel // 2] = 1.0
        self.norm = LayerNorm(dim)
        self.pointwise_out = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, is_padding: torch.Tensor) -> torch.Tensor:
        """Convolve x (N, T, D) in time, with is_padding (N, T) frames taken as zeros."""
        x = F.glu(self.pointwise_in(x), dim=-1)  # (N, T, D)
        x = x.masked_fill(is_padding[..., None], 0)
        x = self.depthwise(x.transpose(1, 2).unsqueeze(2))  # (N, D, 1, T)
        x = x.squeeze(2).transpose(1, 2)  # (N, T, D)
        return self.pointwise_out(F.silu(self.norm(x)))


class ConformerBlock(nn.Module):
    """Half a feed-forward module, self-attention, convolution, half a feed-forward, LayerNorm.

    Each module is a residual branch with LayerNorm before it and dropout after it.
    """

    def __init__(self, options: ConformerOptions) -> None:
        super().__init__()
        dim = options.dim

        def feed_forward() -> nn.Sequential:
            return nn.Sequential(
                LayerNorm(dim),
                nn.Linear(dim, options.feedforward_dim),
                nn.SiLU(),
                Dropout(options.dropout),
                nn.Linear(options.feedforward_dim, dim),
            )

        self.feed_forward_in = feed_forward()
        self.attention_norm = LayerNorm(dim)
        self.attention = RelativeSelfAttention(
            dim, options.num_heads, options.dropout, options.attention_context
        )
        self.convolution_norm = LayerNorm(dim)
        self.convolution = ConvolutionModule(dim, options.conv_kernel, options.identity_start)
        self.feed_forward_out = feed_forward()
        self.norm = LayerNorm(dim)
        self.dropout = Dropout(options.dropout)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, is_padding: torch.Tensor
    ) -> torch.Tensor:
        """Encode x (N, T, D) with positions (2T, D) and is_padding (N, T) → (N, T, D)."""
        x = x.add(self.dropout(self.feed_forward_in(x)), alpha=0.5)
        x = x + self.dropout(self.attention(self.attention_norm(x), positions, is_padding))
        x = x + self.dropout(self.convolution(self.convolution_norm(x), is_padding))
        x = x.add(self.dropout(self.feed_forward_out(x)), alpha=0.5)
        return self.norm(x)


class Conformer(nn.Module):
    """Convolutional subsampling and Conformer blocks; the last block's LayerNorm ends it.

    Args:
        num_features: F, the input dimension.
        options: size and regularisation.
    """

    def __init__(self, num_features: int, options: ConformerOptions) -> None:
        super().__init__()
        self.output_dim = options.dim
        self.subsampling_factor = options.subsampling
        self.subsampling = ConvSubsampling(
            num_features, options.dim, options.subsampling, options.subsampling_channels
        )
        self.dropout = Dropout(options.dropout)
        self.blocks = nn.ModuleList(ConformerBlock(options) for _ in range(options.num_layers))

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Frames after subsampling, of an int or a tensor of ints."""
        return self.subsampling.output_lengths(lengths)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode features (N, T, F), lengths (N,) ≥ 1 → (N, T', D) with zeros as padding, (N,)."""
        encoder_out, lengths, _ = self.forward_layers(features, lengths)
        return encoder_out, lengths

    def forward_layers(
        self, features: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Like `forward`, and the outputs (N, T', D) of some blocks, which count from 1."""
        x, lengths = self.subsampling(features, lengths)  # (N, T', D)
        x = self.dropout(x)
        is_padding = padding_mask(lengths, x.shape[1])
        positions = relative_positions(x.shape[1], like=x)
        outputs = []
        for block in self.blocks:
            x = block(x, positions, is_padding)
            outputs.append(x)
        inner = [outputs[layer - 1] for layer in layers]
        return x.masked_fill(is_padding[..., None], 0), lengths, inner

    def check_layers(self, layers: Sequence[int]) -> None:
        """Find out whether there are these blocks.

        Raises:
            UserError: no.
        """
        for layer in layers:
            if not 1 <= layer <= len(self.blocks):
                raise UserError(f"the encoder has layers 1 to {len(self.blocks)}, not {layer}")
