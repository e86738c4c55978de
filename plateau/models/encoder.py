"""Choosing an encoder by its options."""

from dataclasses import dataclass
from typing import Literal

from plateau.models.blstm import Blstm, BlstmOptions
from plateau.models.conformer import Conformer, ConformerOptions
from plateau.ranges import check_options


@dataclass(frozen=True)
class EncoderOptions:
    """Which encoder, and the options of each kind; only those of the chosen kind matter."""

    kind: Literal["conformer", "blstm"] = "conformer"
    conformer: ConformerOptions = ConformerOptions()
    blstm: BlstmOptions = BlstmOptions()

    def __post_init__(self) -> None:
        check_options(self, "encoder")


def build_encoder(num_features: int, options: EncoderOptions) -> Conformer | Blstm:
    """Make the encoder for features of ``num_features`` dimensions.

    Every encoder maps ``(features (N, T, F), lengths (N,))`` to ``(encoder_out (N, T', D),
    lengths' (N,))`` and has ``output_dim`` (D), ``subsampling_factor`` (input frames for each
    output frame) and ``output_lengths(lengths)``, which takes an int or a tensor.
    """
    if options.kind == "blstm":
        return Blstm(num_features, options.blstm)
    return Conformer(num_features, options.conformer)
