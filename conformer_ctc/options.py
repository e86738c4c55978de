"""Options of the CTC recipe."""

from dataclasses import dataclass
from typing import Literal

from plateau.models.encoder import EncoderOptions
from plateau.training.experiment import ExperimentOptions


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode.

    Args:
        methods: any of greedy, prefix_beam and one_best (k2, on the CTC topology)
        beam: prefixes that prefix beam search keeps
    """

    methods: tuple[Literal["greedy", "prefix_beam", "one_best"], ...] = (
        "greedy",
        "prefix_beam",
        "one_best",
    )
    beam: int = 8


@dataclass(frozen=True)
class Options(ExperimentOptions):
    """An encoder with CTC.

    Args:
        encoder: see `EncoderOptions`
        decoding: see `DecodingOptions`
    """

    encoder: EncoderOptions = EncoderOptions()
    decoding: DecodingOptions = DecodingOptions()
