"""A Transformer decoder that sees all of a text, of which some tokens are masked, and the audio.

Ghazvininejad et al. 2019, "Mask-Predict" (arXiv 1904.09324); with speech: Higuchi et al. 2020,
"Mask CTC" (arXiv 2005.08700).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateau.config import UserError
from plateau.graphs.labels import pad
from plateau.models.conformer import sinusoids
from plateau.models.subsampling import padding_mask
from plateau.ranges import PROBABILITY, SIZE, at_least, check_options


@dataclass(frozen=True)
class TextDecoderOptions:
    """Size and regularisation of the decoder.

    Args:
        dim: D, width of the residual stream; even, and a multiple of num_heads
        num_layers: of self-attention, attention to the audio, and a feed-forward module
        num_heads: attention heads
        feedforward_dim: hidden units of the feed-forward modules
        dropout: probability, on every module's output, hidden units, attention weights
        max_length: tokens that a mask may stand for where a text's length is to be found, too; 0:
            each mask is a token, and the length is that of CTC
    """

    dim: int = 128
    num_layers: int = 3
    num_heads: int = 4
    feedforward_dim: int = 384
    dropout: float = 0.1
    max_length: int = 0

    def __post_init__(self) -> None:
        check_options(
            self,
            "decoder",
            dim=SIZE,
            num_layers=at_least(1, 1000),
            num_heads=SIZE,
            feedforward_dim=SIZE,
            dropout=PROBABILITY,
            max_length=at_least(0, 1000),
        )
        if self.dim % self.num_heads or self.dim % 2:
            raise UserError(
                f"decoder.dim is {self.dim}; it must be even and a multiple of num_heads, "
                f"{self.num_heads}"
            )


@dataclass(frozen=True)
class Memory:
    """What a decoder hears of N utterances.

    Args:
        values: (N, T, D).
        places: (N, T), which token of the text each frame is of, from 0; -1 before the first.
        lengths: (N,) ≥ 1, frames that count.
    """

    values: Tensor
    places: Tensor
    lengths: Tensor

    def silenced(self, silent: Tensor | None = None) -> "Memory":
        """The same, of which some utterances (N,), or all, are not heard."""
        if silent is None:
            return replace(self, values=torch.zeros_like(self.values))
        return replace(self, values=self.values.masked_fill(silent[:, None, None], 0.0))

    def places_of_each(self) -> list[list[int]]:
        """The places of each utterance's frames."""
        rows = zip(self.places.tolist(), self.lengths.tolist(), strict=True)
        return [[int(place) for place in row[:length]] for row, length in rows]

    def at(self, places: Sequence[Sequence[int]]) -> "Memory":
        """The same, of which the frames of each utterance have other places."""
        padded = pad(places, device=self.places.device).to(self.places.dtype)  # (N, ≤ T)
        return replace(self, places=F.pad(padded, (0, self.places.shape[1] - padded.shape[1])))

    def of(self, which: Tensor) -> "Memory":
        """The utterances with these numbers (M,)."""
        return Memory(self.values[which], self.places[which], self.lengths[which])


class TextDecoder(nn.Module):
    """See the module. Token ``mask_id``, which is V, stands where a token is masked.

    Attention to a frame loses (u - p)² / (2 w²) nats, where p is the place that the frame is said
    to be of, u that of the token, and w the width of a head, which is learnt. From the start, so, a
    token is looked for where it is said. Without that, a decoder that is given nothing but masks
    must learn to count what it hears: on espeak it had not begun to after 800 steps.

    Args:
        vocab_size: V, number of labels with the blank, which is no token of a text.
        options: size and regularisation.
    """

    def __init__(self, vocab_size: int, options: TextDecoderOptions) -> None:
        super().__init__()
        self.mask_id = vocab_size
        dim = options.dim
        self.embedding = nn.Embedding(vocab_size + 1, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                dim,
                options.num_heads,
                options.feedforward_dim,
                options.dropout,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(options.num_layers)
        )
        # Of each head: 1, 2, 4, … tokens.
        self.log_width = nn.Parameter(math.log(2) * torch.arange(options.num_heads))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab_size)
        self.max_length = options.max_length
        if self.max_length:
            self.length = nn.Linear(dim, self.max_length + 1)

    def forward(self, tokens: Tensor, num_tokens: Tensor, memory: Memory) -> Tensor:
        """Log-probabilities (N, U, V) of the token at each place, float32.

        Args:
            tokens: (N, U), with ``mask_id`` where one is masked.
            num_tokens: (N,), how many count; the rest is padding, which changes nothing.
            memory: what is heard, with D as the decoder has it.
        """
        return self.output(self._hidden(tokens, num_tokens, memory)).float().log_softmax(dim=-1)

    def lengths(self, tokens: Tensor, num_tokens: Tensor, memory: Memory) -> Tensor:
        """Log-probabilities (N, U, max_length + 1) of how many tokens each mask stands for.

        Args:
            tokens: (N, U), as for `forward`, of `plateau.data.pieces`.
            num_tokens: (N,).
            memory: with the places of frames in these.
        """
        return self.length(self._hidden(tokens, num_tokens, memory)).float().log_softmax(dim=-1)

    def _hidden(self, tokens: Tensor, num_tokens: Tensor, memory: Memory) -> Tensor:
        """What each place has become, (N, U, D)."""
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)  # (N, U, D)
        places = torch.arange(x.shape[1], device=x.device)
        x = x + sinusoids(places, like=x)
        # Attention with nothing to attend to is not a number: a text without tokens keeps one.
        text_padding = padding_mask(num_tokens.clamp(min=1), x.shape[1])
        distance = places[:, None] - memory.places[:, None]  # (N, U, T)
        widths = self.log_width.exp()[None, :, None, None]
        bias = -0.5 * (distance.unsqueeze(1) / widths).square()  # (N, H, U, T)
        hidden = padding_mask(memory.lengths, distance.shape[2])[:, None, None]
        bias = bias.masked_fill(hidden, -math.inf).flatten(0, 1).to(x.dtype)
        for layer in self.layers:
            x = layer(x, memory.values, memory_mask=bias, tgt_key_padding_mask=text_padding)
        return self.norm(x)
