"""Options of the transducer recipe."""

from dataclasses import dataclass
from typing import Literal

from plateau.config import UserError
from plateau.decoding.run import CommonDecodingOptions
from plateau.graphs.labels import Topology
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.ranges import COUNT, PROBABILITY, SHARE, SIZE, above, at_least, check_options
from plateau.training.experiment import SpeechOptions
from plateau.training.schedule import late


@dataclass(frozen=True)
class LossOptions:
    """The transducer loss, and auxiliary ones.

    Args:
        kind: pruned: the full sum over alignments near those that the simple loss finds likely.
            full: over all alignments; for small problems. viterbi: cross entropy along one
            alignment
        topology: rnnt: a frame may have any number of labels. rna: a label takes a frame.
            constrained: a label's frame also has the blank after it (plateau/graphs/transducer.py)
        aligner: whose alignment Viterbi training takes: ctc: the best path of the last of
            ctc_layers. transducer: that of the transducer. Both are of the model as it is. file:
            that in `alignment`
        alignment: frames.txt of `transducer/align.py --sets train,dev`: names of files, by commas
        focal_factor: exponent f of (1 - p)^f in Viterbi training; 0 turns it off
        label_smoothing: share of the target that goes to other labels in Viterbi training
        chunk: Viterbi training takes pieces of this many frames; 0: whole utterances
        prune_range: label positions that are kept for each frame
        simple_scale: weight of the simple loss, whose joiner only adds; it finds the range
        lm_scale: share of the predictor alone in the simple loss
        am_scale: share of the encoder alone in the simple loss
        after_steps: steps with the CTC losses alone, in which the encoder learns where tokens are.
            From the start, a transducer whose encoder sees everything spreads each token over
            many frames; the full sum does not mind, searches do
        warm_up_steps: steps after these over which the weight of the pruned (or full, or Viterbi)
            loss grows from 0.1 to 1, and that of the simple loss falls from 1 to simple_scale
        delay_penalty: nats that a label is worth for each frame earlier; 0 turns it off
        ctc_layers: encoder layers (from 1) with an auxiliary CTC loss
        ctc_scales: weight of each of these
    """

    kind: Literal["pruned", "full", "viterbi"] = "pruned"
    topology: Topology = "rnnt"
    aligner: Literal["ctc", "transducer", "file"] = "ctc"
    alignment: str = ""
    focal_factor: float = 0.0
    label_smoothing: float = 0.0
    chunk: int = 0
    prune_range: int = 5
    simple_scale: float = 0.5
    lm_scale: float = 0.25
    am_scale: float = 0.0
    after_steps: int = 0
    warm_up_steps: int = 500
    delay_penalty: float = 0.0
    ctc_layers: tuple[int, ...] = ()
    ctc_scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_options(
            self,
            "loss",
            focal_factor=at_least(0, 100),
            label_smoothing=PROBABILITY,
            chunk=COUNT,
            prune_range=at_least(2, 10**6),
            simple_scale=at_least(0, 1000),
            lm_scale=SHARE,
            am_scale=SHARE,
            after_steps=COUNT,
            warm_up_steps=COUNT,
            delay_penalty=at_least(0, 1000),
            ctc_layers=SIZE,
            ctc_scales=at_least(0, 1000),
        )
        if len(self.ctc_layers) != len(self.ctc_scales):
            raise UserError(
                f"loss.ctc_layers is {list(self.ctc_layers)} and loss.ctc_scales "
                f"{list(self.ctc_scales)}; give a scale for each layer"
            )
        if self.lm_scale + self.am_scale > 1:
            raise UserError(
                f"loss.lm_scale is {self.lm_scale} and loss.am_scale {self.am_scale}; "
                "together they must be at most 1"
            )
        if self.kind == "viterbi" and self.aligner == "file" and not self.alignment:
            raise UserError(
                "loss.aligner is file, and loss.alignment is empty; set it to frames.txt of an "
                "alignment"
            )
        if self.kind == "viterbi" and self.aligner == "ctc" and not self.ctc_layers:
            raise UserError(
                "loss.aligner is ctc, which aligns by an auxiliary CTC layer; set loss.ctc_layers"
            )

    def check_steps(self, steps: int) -> list[str]:
        """What is worth a note of a training that has so many steps.

        Raises:
            UserError: none of them is for the transducer itself.
        """
        if self.after_steps >= steps:
            raise UserError(
                f"loss.after_steps is {self.after_steps}, and the training has {steps} steps: the "
                f"transducer itself would not be trained; it must be below {steps}"
            )
        return late(self.after_steps, self.warm_up_steps, steps)


@dataclass(frozen=True)
class DecodingOptions(CommonDecodingOptions):
    """How to decode; see `CommonDecodingOptions` too.

    Args:
        methods: any of

            - greedy: the likeliest label, step by step
            - modified_beam: beam search with one label a frame at most
            - fast_beam: k2's, on a graph that accepts any tokens; for stateless predictors
            - fast_beam_lg: the same on the words of the training transcripts, with the language
              model `arpa`

        beam: hypotheses that modified_beam keeps
        search_beam: fast_beam drops states that lie further than this below the best, in nats
        arpa: n-gram language model of words in ARPA format, for fast_beam_lg
        lm_scale: weight of its log-probabilities
        blank_penalty: nats that blank loses
    """

    methods: tuple[Literal["greedy", "modified_beam", "fast_beam", "fast_beam_lg"], ...] = (
        "greedy",
        "modified_beam",
    )
    beam: int = 4
    search_beam: float = 20.0
    arpa: str = ""
    lm_scale: float = 0.3
    blank_penalty: float = 0.0

    def __post_init__(self) -> None:
        self.check(
            beam=at_least(1, 1000),
            search_beam=above(0, 10**6),
            lm_scale=at_least(0, 1000),
            blank_penalty=at_least(-1000, 1000),
        )
        if "fast_beam_lg" in self.methods and not self.arpa:
            raise UserError(
                f"decoding.methods is {list(self.methods)}, but decoding.arpa is empty; set it to "
                "the language model of fast_beam_lg, an ARPA file"
            )


@dataclass(frozen=True)
class Options(SpeechOptions):
    """A transducer.

    Args:
        init_from: experiment folder whose final model's parameters training starts with; the model
            must be of the same sizes
        encoder: see `EncoderOptions`
        predictor: see `PredictorOptions`
        joiner: see `JoinerOptions`
        loss: see `LossOptions`
        decoding: see `DecodingOptions`
    """

    init_from: str = ""
    encoder: EncoderOptions = EncoderOptions()
    predictor: PredictorOptions = PredictorOptions()
    joiner: JoinerOptions = JoinerOptions()
    loss: LossOptions = LossOptions()
    decoding: DecodingOptions = DecodingOptions()
