"""An encoder with CTC, and a decoder that finds masked tokens of the text in what is heard.

Higuchi et al. 2020, "Mask CTC" (arXiv 2005.08700).
"""

from torch import Tensor, nn

from plateau.models.ctc import CtcModel
from plateau.models.encoder import EncoderOptions
from plateau.models.subsampling import Lengths
from plateau.models.text_decoder import TextDecoder, TextDecoderOptions


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
        self.decoder = TextDecoder(vocab_size, self.ctc.encoder.output_dim, decoder)

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
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels of all frames, and tokens of all places.

        Args:
            features: (N, T, F).
            lengths: (N,) ≥ 1.
            tokens: (N, U), with ``decoder.mask_id`` where a token is masked.
            num_tokens: (N,), how many count.
            silent: (N,) bool, whose audio the decoder does not hear.
            guessed: (N,) bool, whose masks are filled with what the decoder says first.

        Returns:
            log-probabilities (N, T', V) of frame labels, their lengths (N,), and log-probabilities
            (N, U, V) of tokens
        """
        encoder_out, lengths = self.ctc.encode(features, lengths)  # (N, T', D)
        heard = silence(encoder_out, silent)
        if guessed.any():
            tokens = self.guess(heard, lengths, tokens, num_tokens, guessed)
        found = self.decoder(tokens, num_tokens, heard, lengths)  # (N, U, V)
        return self.ctc.scores(encoder_out), lengths, found

    def guess(
        self,
        encoder_out: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        num_tokens: Tensor,
        guessed: Tensor,
    ) -> Tensor:
        """Tokens (N, U) with the likeliest of each mask in its place, without gradient."""
        found = self.decoder(tokens, num_tokens, encoder_out, lengths).detach()
        masked = (tokens == self.decoder.mask_id) & guessed[:, None]  # (N, U)
        return found.argmax(2).where(masked, tokens)


def silence(encoder_out: Tensor, silent: Tensor) -> Tensor:
    """The encoder's output (N, T', D) with zeros for those utterances (N,) that are not heard."""
    return encoder_out.masked_fill(silent[:, None, None], 0.0)
