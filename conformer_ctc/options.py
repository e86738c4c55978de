"""Options of the CTC recipe."""

from dataclasses import dataclass
from typing import Literal

from plateau.decoding.run import CommonDecodingOptions
from plateau.models.encoder import EncoderOptions
from plateau.training.experiment import ExperimentOptions


@dataclass(frozen=True)
class LossOptions:
    """The loss.

    Args:
        delay_penalty: nats that a token is worth for each frame earlier; 0 turns it off
    """

    delay_penalty: float = 0.0


@dataclass(frozen=True)
class DecodingOptions(CommonDecodingOptions):
    """How to decode; see `CommonDecodingOptions` too.

    Args:
        methods: any of

            - greedy: the likeliest label of each frame
            - prefix_beam: the likeliest token sequence over all its alignments
            - one_best: the best path through the CTC topology, by k2
            - lexicon: the same, through words of the training transcripts only, by k2; a word that
              was not in training cannot be heard

        beam: prefixes that prefix beam search keeps
        lm_scale: weight of the words' log probabilities (unigram of the training transcripts) with
            the lexicon, 0 or more
        search_beam: states that lie further than this below the best (nats) are dropped with the
            lexicon
    """

    methods: tuple[Literal["greedy", "prefix_beam", "one_best", "lexicon"], ...] = (
        "greedy",
        "prefix_beam",
        "one_best",
        "lexicon",
    )
    beam: int = 8
    lm_scale: float = 0.3
    search_beam: float = 20.0


@dataclass(frozen=True)
class Options(ExperimentOptions):
    """An encoder with CTC.

    Args:
        encoder: see `EncoderOptions`
        loss: see `LossOptions`
        decoding: see `DecodingOptions`
    """

    encoder: EncoderOptions = EncoderOptions()
    loss: LossOptions = LossOptions()
    decoding: DecodingOptions = DecodingOptions()
