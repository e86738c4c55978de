"""A model of windows: masked words and the audio around them attend to each other.

Words (some of them masked) and steps of audio are embedded and given their positions. In each block
the words attend to the audio, and the audio to the words; what a masked word has become says which
word it is. With all words masked this is recognition of all words at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateau.data.windows import PADDING, WindowOptions
from plateau.errors import UserError
from plateau.models.conformer import (
    ConformerBlock,
    ConformerOptions,
    LayerNorm,
    relative_positions,
    sinusoids,
)
from plateau.models.dropout import Dropout
from plateau.models.normalise import GlobalNorm
from plateau.models.subsampling import padding_mask
from plateau.ranges import PROBABILITY, SIZE, at_least, check_options

PIECES = (1, 2, 3)  # letters in the pieces of a word's spelling


@dataclass(frozen=True)
class WindowModelOptions:
    """Size and form of a `WindowModel`.

    Args:
        dim: D, width of words and audio; a multiple of num_heads, even
        audio_layers: Conformer blocks on the audio before words attend to it; 0: a linear layer
            alone
        num_blocks: blocks in which words attend to audio and audio to words; 0: words never hear
            anything
        num_heads: attention heads
        feedforward_dim: hidden units of feed-forward layers
        dropout: probability, on embeddings, attention weights and the output of every layer
        positions: learnt: a vector for each place. sinusoidal: sines (Vaswani et al. 2017), a word
            at the step of audio where it would be if all were equally long. relative: a bias of the
            attention for each distance from that step. none: places are not told apart
        predict: all: the masked words. last: the last word of a window, which is always masked
        spelling: the vector of a word is one of its own and those of the pieces of its spelling
            (Bojanowski et al. 2017, arXiv 1607.04606), so that words of which there are few
            examples learn from others
    """

    dim: int = 128
    audio_layers: int = 3
    num_blocks: int = 2
    num_heads: int = 4
    feedforward_dim: int = 256
    dropout: float = 0.2
    positions: Literal["learnt", "sinusoidal", "relative", "none"] = "learnt"
    predict: Literal["all", "last"] = "all"
    spelling: bool = True

    def __post_init__(self) -> None:
        check_options(
            self,
            "window_model",
            dim=SIZE,
            audio_layers=at_least(0, 1000),
            num_blocks=at_least(0, 1000),
            num_heads=SIZE,
            feedforward_dim=SIZE,
            dropout=PROBABILITY,
        )
        if self.dim % self.num_heads or self.dim % 2:
            raise UserError(
                f"window_model.dim is {self.dim}; it must be even and a multiple of num_heads, "
                f"{self.num_heads}"
            )


class WordTable(nn.Module):
    """A vector for each word, and one for a mask: see ``spelling`` in `WindowModelOptions`.

    Args:
        vocab: V words.
        dim: D.
        spelling: whether words share those of their pieces.
    """

    def __init__(self, vocab: Sequence[str], dim: int, spelling: bool) -> None:
        super().__init__()
        # With pieces, the word's own vector is the smaller part at first.
        own = 0.3 if spelling else 1.0
        self.own = nn.Parameter(own * dim**-0.5 * torch.randn(len(vocab) + 1, dim))
        self.spelling = spelling
        if not spelling:
            return
        numbers: dict[str, int] = {}
        pieces = [
            [numbers.setdefault(piece, len(numbers)) for piece in pieces_of(word)] for word in vocab
        ]
        self.pieces = nn.Parameter(dim**-0.5 * torch.randn(len(numbers), dim))
        sizes = torch.tensor([len(own) for own in pieces])
        self.register_buffer(
            "numbers", torch.tensor([n for own in pieces for n in own]), persistent=False
        )
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("scales", sizes[:, None] ** -0.5, persistent=False)

    def forward(self) -> Tensor:
        """All vectors (V + 1, D)."""
        if not self.spelling:
            return self.own
        spelt = F.embedding_bag(self.numbers, self.pieces, self.starts, mode="sum") * self.scales
        return self.own + F.pad(spelt, (0, 0, 0, 1))


def pieces_of(word: str) -> list[str]:
    """One, two and three letters in a row; ``<`` and ``>`` stand at the ends of the word."""
    marked = f"<{word}>"
    return [marked[i : i + n] for n in PIECES for i in range(len(marked) - n + 1)]


class FeedForward(nn.Sequential):
    """LayerNorm, and two linear layers with a Swish in between: (…, D) → (…, D)."""

    def __init__(self, options: WindowModelOptions) -> None:
        super().__init__(
            LayerNorm(options.dim),
            nn.Linear(options.dim, options.feedforward_dim),
            nn.SiLU(),
            Dropout(options.dropout),
            nn.Linear(options.feedforward_dim, options.dim),
        )


class CrossDomainBlock(nn.Module):
    """Words attend to audio, then audio to words; each then has a feed-forward layer.

    Each is a residual branch with LayerNorm before it and dropout after it.

    Args:
        options: size.
        last: whether no block comes after it; what becomes of the audio then does not matter.
    """

    def __init__(self, options: WindowModelOptions, last: bool) -> None:
        super().__init__()

        def attention() -> nn.MultiheadAttention:
            return nn.MultiheadAttention(
                options.dim, options.num_heads, options.dropout, batch_first=True
            )

        self.word_norm, self.audio_norm = LayerNorm(options.dim), LayerNorm(options.dim)
        self.to_audio, self.word_layer = attention(), FeedForward(options)
        self.dropout = Dropout(options.dropout)
        self.last = last
        if not last:
            self.said_norm, self.to_words = LayerNorm(options.dim), attention()
            self.audio_layer = FeedForward(options)

    def forward(
        self,
        words: Tensor,
        audio: Tensor,
        word_padding: Tensor,
        audio_padding: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block.

        Args:
            words: (N, W, D).
            audio: (N, T, D).
            word_padding: (N, W), True where nothing attends to.
            audio_padding: (N, T), the same.
            bias: (H, W, T), which is added to scores; None: nothing.

        Returns:
            words, audio, and how much each word attended to each step, mean of heads, (N, W, T)
        """
        if bias is not None:
            bias = bias.repeat(len(words), 1, 1)  # (N H, W, T), as torch wants it
        heard = self.audio_norm(audio)
        found, weights = self.to_audio(
            self.word_norm(words), heard, heard, key_padding_mask=audio_padding, attn_mask=bias
        )
        words = words + self.dropout(found)
        words = words + self.dropout(self.word_layer(words))
        if self.last:
            return words, audio, weights
        said = self.said_norm(words)
        bias = None if bias is None else bias.transpose(1, 2)
        found, _ = self.to_words(
            heard, said, said, key_padding_mask=word_padding, attn_mask=bias, need_weights=False
        )
        audio = audio + self.dropout(found)
        audio = audio + self.dropout(self.audio_layer(audio))
        return words, audio, weights


@dataclass(frozen=True)
class Heard:
    """What a `WindowModel` makes of windows.

    Args:
        logits: (N, W, V) float32, scores of all words at each place
        attention: (N, W, T), how much the words attended to each step in the last block; each
            row sums to 1, or to 0 without blocks
        frames: (N, T, V) float32, scores of what is said in each step, before the blocks
        steps: (N, T) bool, steps that there are
    """

    logits: Tensor
    attention: Tensor
    frames: Tensor
    steps: Tensor


class WindowModel(nn.Module):
    """From features and words, some of them masked, to scores for each word.

    ``mask_id``, which is V, stands in place of a masked word. With ``window.padding=mask`` neither
    how much padding there is nor what is in it changes anything; with ``token`` all that is there
    is attended to, and audio is padded to its full length. ``steps`` counts the steps of training.

    Args:
        num_features: F.
        vocab: V words; the first is blank, which stands for padding.
        window: what a window is.
        options: size and form.
    """

    steps: Tensor

    def __init__(
        self,
        num_features: int,
        vocab: Sequence[str],
        window: WindowOptions,
        options: WindowModelOptions,
    ) -> None:
        super().__init__()
        self.window, self.options = window, options
        self.mask_id = len(vocab)
        self.register_buffer("steps", torch.tensor(0))
        dim = options.dim
        self.norm = GlobalNorm(num_features)
        joined = num_features * (window.frame_stride if window.frame_join == "stack" else 1)
        self.audio = nn.Linear(joined, dim)
        self.table = WordTable(vocab, dim, options.spelling)
        conformer = ConformerOptions(
            dim=dim,
            num_heads=options.num_heads,
            feedforward_dim=options.feedforward_dim,
            dropout=options.dropout,
        )
        self.audio_layers = nn.ModuleList(
            ConformerBlock(conformer) for _ in range(options.audio_layers)
        )
        self.blocks = nn.ModuleList(
            CrossDomainBlock(options, last=n == options.num_blocks - 1)
            for n in range(options.num_blocks)
        )
        self.dropout = Dropout(options.dropout)
        self.output_norm = LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(len(vocab)))
        if options.positions == "learnt":
            self.word_positions = nn.Parameter(0.1 * torch.randn(window.words, dim))
            self.audio_positions = nn.Parameter(0.1 * torch.randn(window.frames, dim))
        elif options.positions == "relative":
            # Of distances from -frames to frames.
            self.distances = nn.Parameter(torch.zeros(options.num_heads, 2 * window.frames + 1))

    def forward(self, features: Tensor, lengths: Tensor, words: Tensor) -> Heard:
        """See `Heard`.

        Args:
            features: (N, T', F), padded at their ends.
            lengths: (N,), feature frames, from 1 to ``window.feature_frames``.
            words: (N, W) int64: ids, ``mask_id``, and PADDING on the side that ``window`` says.
        """
        x, steps = self._steps(features, lengths)  # (N, T, ·), (N, T)
        all_count = self.window.padding == "token"
        audio_padding = torch.zeros_like(steps) if all_count else ~steps
        word_padding = torch.zeros_like(words, dtype=torch.bool) if all_count else words == PADDING
        x = self.dropout(self.audio(x))  # (N, T, D)
        relative = relative_positions(x.shape[1], like=x)
        for layer in self.audio_layers:
            x = layer(x, relative, audio_padding)
        table = self.table()  # (V + 1, D)
        frames = self._scores(x, table)
        y = F.embedding(words, table) * self.options.dim**0.5  # (N, W, D)
        word_positions, audio_positions, bias = self._positions(y, x)
        y, x = self.dropout(y + word_positions), x + audio_positions
        attention = x.new_zeros(*words.shape, x.shape[1])
        for block in self.blocks:
            y, x, attention = block(y, x, word_padding, audio_padding, bias)
        return Heard(self._scores(y, table), attention, frames, steps)

    def _scores(self, x: Tensor, table: Tensor) -> Tensor:
        """Scores of all words, (…, V) float32, of x (…, D)."""
        return F.linear(self.output_norm(x), table[:-1], self.bias).float()

    def _steps(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of audio (N, T, ·), zeros where there is none, and which are there (N, T)."""
        stride = self.window.frame_stride
        x = self.norm(features)
        x = x.masked_fill(padding_mask(lengths, x.shape[1])[..., None], 0)
        full = self.window.padding == "token"
        num_steps = self.window.frames if full else -(-x.shape[1] // stride)
        x = F.pad(x, (0, 0, 0, num_steps * stride - x.shape[1]))
        if self.window.frame_join == "stack":
            x = x.unflatten(1, (num_steps, stride)).flatten(2)  # (N, T, stride F)
        else:
            x = x[:, ::stride]  # (N, T, F)
        return x, ~padding_mask((lengths + stride - 1) // stride, num_steps)

    def _positions(self, words: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is added to words (W, D) and audio (T, D), and to scores (H, W, T)."""
        window, num_words = self.window, words.shape[1]
        first = 0 if window.side == "right" else window.words - num_words
        word = torch.arange(first, first + num_words, device=words.device)  # (W,)
        step = torch.arange(audio.shape[1], device=words.device)  # (T,)
        # The step where a word would be if all were equally long.
        there = (word + 0.5) * window.frames / window.words
        nothing = words.new_zeros(1)
        match self.options.positions:
            case "learnt":
                return self.word_positions[word], self.audio_positions[step], None
            case "sinusoidal":
                return sinusoids(there, words), sinusoids(step + 0.5, words), None
            case "relative":
                distance = (step - there[:, None]).round().long()  # (W, T)
                return nothing, nothing, self.distances[:, distance + window.frames]
        return nothing, nothing, None
