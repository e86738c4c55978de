"""An encoder with CTC, and a decoder that finds masked tokens of the text in what is heard.

Higuchi et al. 2020, "Mask CTC" (arXiv 2005.08700).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateau.data.pieces import Piece, piece_places
from plateau.graphs.labels import BLANK, pad
from plateau.models.ctc import CtcModel
from plateau.models.encoder import EncoderOptions
from plateau.models.subsampling import Lengths
from plateau.models.text_decoder import Memory, TextDecoder, TextDecoderOptions


class MaskedTextModel(nn.Module):
    """See the module; ``ctc`` alone is a model as the CTC recipe has it.

    Args:
        num_features: F, the input dimension.
        vocab_size: V, number of labels with the blank, which is label 0.
        encoder: which encoder.
        decoder: size of the decoder.
    """

    def __init__(
        self,
        num_features: int,
        vocab_size: int,
        encoder: EncoderOptions,
        decoder: TextDecoderOptions,
    ) -> None:
        super().__init__()
        self.ctc = CtcModel(num_features, vocab_size, encoder)
        self.memory = nn.Linear(self.ctc.encoder.output_dim, decoder.dim)
        self.decoder = TextDecoder(vocab_size, decoder)

    @property
    def encoder(self) -> nn.Module:
        """The encoder."""
        return self.ctc.encoder

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Frames of the encoder's output, of an int or a tensor of ints."""
        return self.ctc.output_lengths(lengths)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        num_tokens: Tensor,
        silent: Tensor,
        guessed: Tensor,
        places: Callable[[Tensor, Tensor], Tensor] | None,
        joint: bool = True,
        pieces: Sequence[Sequence[Piece]] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Labels of all frames, and tokens of all places.

        Args:
            features: (N, T, F).
            lengths: (N,) ≥ 1.
            tokens: (N, U), with ``decoder.mask_id`` where a token is masked.
            num_tokens: (N,), how many count.
            silent: (N,) bool, whose audio the decoder does not hear.
            guessed: (N,) bool, whose masks are filled with what the decoder says first.
            places: from log-probabilities of frame labels and their lengths to the place of each
                frame in the text, (N, T'); None: no tokens are looked for.
            joint: gradients of the tokens reach the encoder.
            pieces: N, the same texts with masks that stand for some tokens each, or for none; None:
                no lengths are looked for.

        Returns:
            log-probabilities (N, T', V) of frame labels, their lengths (N,), log-probabilities
            (N, U, V) of tokens, and those of the lengths of pieces; see `TextDecoder.lengths`
        """
        encoder_out, lengths = self.ctc.encode(features, lengths)  # (N, T', D)
        log_probs = self.ctc.scores(encoder_out)
        if places is None:
            return log_probs, lengths, None, None
        heard = encoder_out if joint else encoder_out.detach()
        memory = self.hear(heard, lengths, places(log_probs.detach(), lengths)).silenced(silent)
        if guessed.any():
            tokens = self.guess(memory, tokens, num_tokens, guessed)
        found = self.decoder(tokens, num_tokens, memory)
        of_lengths = None if pieces is None else piece_lengths(self.decoder, pieces, memory)
        return log_probs, lengths, found, of_lengths

    def hear(self, encoder_out: Tensor, lengths: Tensor, places: Tensor) -> Memory:
        """What the decoder attends to.

        Args:
            encoder_out: (N, T, D).
            lengths: (N,).
            places: (N, T), which token of the text each frame is of, from 0.
        """
        return Memory(self.memory(encoder_out), places, lengths)

    def guess(self, memory: Memory, tokens: Tensor, num_tokens: Tensor, guessed: Tensor) -> Tensor:
        """Tokens (N, U) with the likeliest of each mask in its place, without gradient."""
        found = self.decoder(tokens, num_tokens, memory).detach()
        masked = (tokens == self.decoder.mask_id) & guessed[:, None]  # (N, U)
        return found.argmax(2).where(masked, tokens)


def piece_lengths(
    decoder: TextDecoder, pieces: Sequence[Sequence[Piece]], memory: Memory
) -> Tensor:
    """Log-probabilities (N, U, max_length + 1) of how many tokens each piece stands for.

    Args:
        decoder: with a ``max_length``.
        pieces: N texts.
        memory: with places in these texts.
    """
    device = memory.values.device
    memory = memory.at(
        [
            piece_places(row, heard)
            for row, heard in zip(pieces, memory.places_of_each(), strict=True)
        ]
    )
    tokens = pad([[piece.token for piece in row] for row in pieces], device=device)
    num_tokens = torch.tensor([len(row) for row in pieces], device=device)
    return decoder.lengths(tokens, num_tokens, memory)


def heard_places(log_probs: Tensor) -> Tensor:
    """The place of the token that each frame is of, (N, T), by CTC's likeliest labels.

    That is how many tokens have begun by then, less one, as greedy search finds them.

    Args:
        log_probs: (N, T, V), of CTC.
    """
    labels = log_probs.argmax(2)  # (N, T)
    before = F.pad(labels[:, :-1], (1, 0), value=BLANK)
    return ((labels != BLANK) & (labels != before)).cumsum(1).to(log_probs.dtype) - 1
