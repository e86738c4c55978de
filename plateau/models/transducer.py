"""A transducer: encoder, predictor and joiner (Graves 2012, arXiv:1211.3711)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plateau.models.ctc import start_with_blank
from plateau.models.encoder import EncoderOptions, build_encoder
from plateau.models.joiner import Joiner, JoinerOptions
from plateau.models.normalise import GlobalNorm
from plateau.models.predictor import PredictorOptions, build_predictor
from plateau.models.subsampling import Lengths


@dataclass(frozen=True)
class TransducerOutput:
    """All that losses need.

    Args:
        lengths: (N,), frames T' of each utterance.
        encoder: (N, T', J), the joiner's projection of the encoder's output.
        predictor: (N, U + 1, J), that of the predictor's.
        am: (N, T', V), label scores from the encoder alone, for pruning.
        lm: (N, U + 1, V), label scores from the predictor alone.
        ctc: by layer (from 1), log-probabilities (N, T', V) for auxiliary CTC losses.
    """

    lengths: Tensor
    encoder: Tensor
    predictor: Tensor
    am: Tensor
    lm: Tensor
    ctc: dict[int, Tensor]


class TransducerModel(nn.Module):
    """Normalisation, encoder, predictor and joiner; label 0 is blank.

    Args:
        num_features: F, the input dimension.
        vocab_size: V, number of labels with the blank.
        encoder: which encoder.
        predictor: which predictor.
        joiner: which joiner.
        ctc_layers: layers of the encoder (from 1) that have an output layer for CTC.

    Raises:
        UserError: the encoder has no such layer.
    """

    def __init__(
        self,
        num_features: int,
        vocab_size: int,
        encoder: EncoderOptions,
        predictor: PredictorOptions,
        joiner: JoinerOptions,
        ctc_layers: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.norm = GlobalNorm(num_features)
        self.encoder = build_encoder(num_features, encoder)
        self.encoder.check_layers(ctc_layers)
        self.predictor = build_predictor(vocab_size, predictor)
        dims = self.encoder.output_dim, self.predictor.output_dim
        self.joiner = Joiner(*dims, vocab_size, joiner)
        self.am = start_with_blank(nn.Linear(dims[0], vocab_size))
        self.lm = nn.Linear(dims[1], vocab_size)
        # Steps of training; the loss warms up by it, and it is in the checkpoint.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.ctc = nn.ModuleDict(
            {str(n): start_with_blank(nn.Linear(dims[0], vocab_size)) for n in ctc_layers}
        )

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Frames of the encoder's output, of an int or a tensor of ints."""
        return self.encoder.output_lengths(lengths)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The joiner's view of features (N, T, F), lengths (N,) ≥ 1: (N, T', J), (N,)."""
        encoder_out, lengths = self.encoder(self.norm(features), lengths)  # (N, T', D)
        return self.joiner.encoder(encoder_out), lengths

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor) -> TransducerOutput:
        """Features (N, T, F), lengths (N,) ≥ 1, tokens (N, U), padded with any label."""
        layers = [int(layer) for layer in self.ctc]
        encoder_out, lengths, inner = self.encoder.forward_layers(
            self.norm(features), lengths, layers
        )  # (N, T', D)
        predictor_out = self.predictor(tokens)  # (N, U + 1, P)
        return TransducerOutput(
            lengths=lengths,
            encoder=self.joiner.encoder(encoder_out),
            predictor=self.joiner.predictor(predictor_out),
            am=self.am(encoder_out),
            lm=self.lm(predictor_out),
            ctc={
                layer: self.ctc[str(layer)](x).float().log_softmax(-1)
                for layer, x in zip(layers, inner, strict=True)
            },
        )
