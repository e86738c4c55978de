"""Options of the CTC recipe."""

from dataclasses import dataclass, replace
from typing import Literal

from plateau.decoding.run import CommonDecodingOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.prior import PriorOptions
from plateau.ranges import COUNT, SHARE, above, at_least, check_options
from plateau.training.experiment import SpeechOptions
from plateau.training.schedule import late


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
        prior: label prior that posteriors are divided by, see `PriorOptions`; it is estimated from
            the first step on
        after_steps: steps of plain CTC, in which the encoder learns where tokens are, before any of
            the above counts. From the start, priors, penalties and other topologies than ctc may
            keep a model at "nothing but blank" for good
        warm_up_steps: steps over which viterbi, acoustic_scale, delay_penalty and prior.scale then
            go from what they are in plain CTC to what they are here
    """

    topology: Literal["ctc", "ctc_without_inner_blank", "silence", "forced_silence", "hmm"] = "ctc"
    viterbi: float = 0.0
    acoustic_scale: float = 1.0
    delay_penalty: float = 0.0
    prior: PriorOptions = PriorOptions()
    after_steps: int = 0
    warm_up_steps: int = 0

    def __post_init__(self) -> None:
        check_options(
            self,
            "loss",
            viterbi=SHARE,
            acoustic_scale=above(0, 1000),
            delay_penalty=at_least(0, 1000),
            after_steps=COUNT,
            warm_up_steps=COUNT,
        )

    def at(self, step: int) -> "LossOptions":
        """The loss at a step of training, from 0: these options as far as they count by then."""
        warm = min(1.0, (step + 1 - self.after_steps) / max(self.warm_up_steps, 1))
        if warm <= 0:
            return LossOptions(prior=replace(self.prior, scale=0.0))
        return replace(
            self,
            viterbi=warm * self.viterbi,
            acoustic_scale=1 + warm * (self.acoustic_scale - 1),
            delay_penalty=warm * self.delay_penalty,
            prior=replace(self.prior, scale=warm * self.prior.scale),
        )

    def check_steps(self, steps: int) -> list[str]:
        """What is worth a note of a training that has so many steps."""
        no_prior = replace(self.prior, estimator="none")
        if self == LossOptions(
            prior=no_prior, after_steps=self.after_steps, warm_up_steps=self.warm_up_steps
        ):  # plain CTC all along
            return []
        return late(self.after_steps, self.warm_up_steps, steps)


@dataclass(frozen=True)
class DecodingOptions(CommonDecodingOptions):
    """How to decode; see `CommonDecodingOptions` too.

    Args:
        methods: any of

            - greedy: the likeliest label of each frame
            - prefix_beam: the likeliest token sequence over all its alignments
            - one_best: the best path through the CTC topology
            - lexicon: the same, through words of the training transcripts only; a word that
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

    def __post_init__(self) -> None:
        self.check(
            beam=at_least(1, 1000),
            lm_scale=at_least(0, 1000),
            search_beam=above(0, 10**6),
            prior_scale=at_least(0, 100),
        )


@dataclass(frozen=True)
class Options(SpeechOptions):
    """An encoder with CTC.

    Args:
        encoder: see `EncoderOptions`
        loss: see `LossOptions`
        decoding: see `DecodingOptions`
    """

    encoder: EncoderOptions = EncoderOptions()
    loss: LossOptions = LossOptions()
    decoding: DecodingOptions = DecodingOptions()
