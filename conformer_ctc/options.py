"""Options of the CTC recipe."""

from dataclasses import dataclass
from typing import Literal

from plateau.config import UserError
from plateau.decoding.run import CommonDecodingOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.prior import PriorOptions
from plateau.training.experiment import ExperimentOptions


@dataclass(frozen=True)
class LossOptions:
    """The loss: minus the log of the weight of all alignments of the transcript, or of the best.

    Args:
        topology: which sequences of frame labels are alignments of the transcript `ab c`, with
            blank or silence B, label 0:

            - ctc: B* a+ B* b+ B* c+ B*, where B must stand between equal tokens
            - ctc_without_inner_blank: B* a+ b+ c+ B*, and B between equal tokens
            - silence: B* a+ b+ B* c+ B*; with tokens.kind=phone, an HMM with optional silence
            - forced_silence: B+ a+ b+ B+ c+ B+
            - hmm: a+ b+ c+

            With the last three, a token and its like next to it look like one; of the methods of
            decoding, only lexicon tells them apart
        viterbi: share of the best alignment's loss in the mix with the sum over all, 0 to 1
        acoustic_scale: exponent of the posteriors, more than 0; below 1, alignments are softer
        delay_penalty: nats that a token is worth for each frame earlier; 0 turns it off
        prior: label prior that posteriors are divided by, see `PriorOptions`
    """

    topology: Literal["ctc", "ctc_without_inner_blank", "silence", "forced_silence", "hmm"] = "ctc"
    viterbi: float = 0.0
    acoustic_scale: float = 1.0
    delay_penalty: float = 0.0
    prior: PriorOptions = PriorOptions()

    def __post_init__(self) -> None:
        if not 0 <= self.viterbi <= 1:
            raise UserError(f"loss.viterbi is {self.viterbi}; it must lie in 0 … 1")
        if not self.acoustic_scale > 0:
            raise UserError(f"loss.acoustic_scale is {self.acoustic_scale}; it must be above 0")
        if not self.delay_penalty >= 0:
            raise UserError(f"loss.delay_penalty is {self.delay_penalty}; it must be 0 or more")


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
        prior_scale: exponent of the model's label prior, which posteriors are divided by; 0: none
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
    prior_scale: float = 0.0


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
