"""Options of the recipe for text with holes."""

from dataclasses import dataclass
from typing import Literal

from plateau.config import UserError
from plateau.data.masking import MaskingOptions
from plateau.decoding.run import CommonDecodingOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.text_decoder import TextDecoderOptions
from plateau.ranges import COUNT, PROBABILITY, SHARE, SIZE, above, at_least, check_options
from plateau.training.experiment import SpeechOptions


@dataclass(frozen=True)
class LossOptions:
    """Cross entropy of the masked tokens, and CTC.

    Args:
        ctc_scale: share of CTC in the loss, 0 to 1
        joint: the encoder learns by the masked tokens, too; without it, by CTC alone
        label_smoothing: share of a masked token's target that goes to all tokens
        after_steps: steps with CTC alone, in which the encoder learns where tokens are. The decoder
            looks for them where CTC says they are; before it knows, there is nothing to learn
    """

    ctc_scale: float = 0.5
    joint: bool = False
    label_smoothing: float = 0.0
    after_steps: int = 0

    def __post_init__(self) -> None:
        check_options(self, "loss", ctc_scale=SHARE, label_smoothing=PROBABILITY, after_steps=COUNT)

    def check_steps(self, steps: int) -> list[str]:
        """What is worth a note of a training that has so many steps."""
        if self.after_steps < steps:
            return []
        return [
            f"loss.after_steps is {self.after_steps}, and the training has {steps} steps: no "
            "masked token is learnt"
        ]


@dataclass(frozen=True)
class DecodingOptions(CommonDecodingOptions):
    """How to decode; see `CommonDecodingOptions` too.

    Args:
        methods: with everything masked, any of

            - greedy: the likeliest label of each frame, by CTC alone
            - mask_predict: of that, tokens of a low posterior are masked and found by the decoder
            - mask_predict_lengths: the same, and the decoder says how many tokens there are; for
              models trained with a decoder.max_length
            - lexicon: the best path of CTC through words of the training transcripts only; a word
              that was not in training cannot be heard

        threshold: posterior below which a token of CTC is masked
        rounds: in which the masks are filled, the surest first; 0: one token a round
        order: which are the surest: those of the highest probability, or of the lowest entropy
        corrections: rounds after that, in which all that was masked is found once more, given all
            the others; for models trained with masking.guessed
        holes: shares of the words that are masked where text with holes is filled
        max_words: words in a hole, at most
        candidates: words that the decoder is asked about for each place in a hole, those that CTC
            finds likeliest there
        decoder_scale: weight of the decoder's log-probability of a word beside that of CTC
        lm_scale: weight of a word's log probability (unigram of the training transcripts), in holes
            and with lexicon
        unknown_penalty: nats that a word costs in a hole which is in no training transcript;
            subwords and characters can spell such words
        search_beam: states that lie further than this below the best (nats) are dropped
    """

    methods: tuple[Literal["greedy", "mask_predict", "mask_predict_lengths", "lexicon"], ...] = (
        "greedy",
        "mask_predict",
        "lexicon",
    )
    threshold: float = 0.99
    rounds: int = 4
    order: Literal["confidence", "entropy"] = "confidence"
    corrections: int = 0
    holes: tuple[float, ...] = (0.1, 0.25, 0.5)
    max_words: int = 4
    candidates: int = 16
    decoder_scale: float = 0.5
    lm_scale: float = 0.3
    unknown_penalty: float = 10.0
    search_beam: float = 20.0

    def __post_init__(self) -> None:
        self.check(
            threshold=SHARE,
            rounds=COUNT,
            corrections=at_least(0, 100),
            holes=SHARE,
            max_words=at_least(1, 100),
            candidates=SIZE,
            decoder_scale=at_least(0, 1000),
            lm_scale=at_least(0, 1000),
            unknown_penalty=at_least(0, 1000),
            search_beam=above(0, 10**6),
        )
        if len(set(self.holes)) < len(self.holes):
            raise UserError(f"decoding.holes is {list(self.holes)}; give each share once")


@dataclass(frozen=True)
class Options(SpeechOptions):
    """Audio, and text of which some is masked.

    Args:
        encoder: see `EncoderOptions`
        decoder: see `TextDecoderOptions`
        masking: see `MaskingOptions`
        loss: see `LossOptions`
        decoding: see `DecodingOptions`
    """

    encoder: EncoderOptions = EncoderOptions()
    decoder: TextDecoderOptions = TextDecoderOptions()
    masking: MaskingOptions = MaskingOptions()
    loss: LossOptions = LossOptions()
    decoding: DecodingOptions = DecodingOptions()
