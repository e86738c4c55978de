"""What one toy experiment is: its options, and the problem that they pose."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from plateau.config import UserError
from plateau.graphs.counts import count_paths, shortest_path
from plateau.graphs.graph import Graphs, arcs_of
from plateau.graphs.topology import (
    STANDARD,
    TOPOLOGIES,
    Words,
    chain,
    read_fsa,
    segments_of,
)
from plateau.ranges import SIZE, at_least, below, check_options

ModelName = Literal[
    "bias", "mem", "mem+bias", "linear", "ffnn", "blstm", "model_free", "gen_model_free"
]
LossName = Literal["sum", "max", "sum+max", "sum_with_prior", "sum_with_prior_sg", "gen_sum"]

SCALE = at_least(0, 1000)  # of random numbers that are added to logits
MOST_LOGITS = 10**8  # of all runs together; some copies of 0.8 GB each


@dataclass(frozen=True)
class Options:
    """Options of a toy experiment.

    Args:
        model: bias: the same logits at every frame. mem: logits for each frame. mem+bias: their
            sum. linear, ffnn, blstm: networks that read the input. model_free: logits
            [θ_x, −θ_x] for each input symbol x. gen_model_free: p(x | label) from θ_label.
        loss: sum: full sum over alignments. max: best alignment. sum+max: mean of both.
            sum_with_prior: scores divided by the average posterior. sum_with_prior_sg: the same
            without gradient through that average. gen_sum: scores as they are, no softmax.
        frames: T, number of frames; without it as many as the input has, or 100.
        classes: N, labels without blank; they are 0 … N−1, and blank (or silence) is N. Without it
            as many as the target has.
        target: labels, such as '0 0 1'; '|' separates words. Without it 0 … N−1.
        topology: which frame labels stand for the target (ctc, ctc_without_inner_blank, silence,
            forced_silence, hmm), or a standard one together with its target (1label, 1label_2times,
            2label, 3label_blank, 3label_sil, 4label_2words_blank, 4label_2words_sil).
        fsa: file with an FSA as target, lines 'from to label [log weight]' and 'final'.
        input: what the model reads, a label per frame: '1 1 0 0 0 1' or '1x2 0x3 1x1'. It is the
            ground truth, too.
        init: parameters at the start.
        rnd_scale: standard deviation of normal, half width of uniform.
        blank_bias_init: what blank's logit (mem, bias) starts with.
        bias: whether layers have a bias.
        hidden_dim: size of hidden layers (ffnn, blstm; the latter in each direction).
        num_layers: number of hidden layers (ffnn, blstm).
        optimizer: sgd is plain gradient descent on each run's loss, summed over frames.
        lr: learning rate.
        steps: number of losses computed; the last one is that after steps − 1 updates.
        seeds: 'A:B' for A … B−1, or one number. All run in one batch, each as if alone.
        scale_update_inv_param_size: gradients are scaled by the size of their parameter, over that
            of the largest.
        gradient_noise: standard deviation of noise added to gradients.
        weight_noise: standard deviation of noise added to parameters, anew for every step.
        logits_time_dropout: share r of frames whose logits are set to 0 in a step; the others
            are scaled by 1 / (1 − r).
        scale_sm_by_prior: posteriors are divided by their average, and renormalised, before the
            loss; no gradient through that average.
        scale_grads_by_1_m_prior: the gradient of each logit is scaled by 1 − its label's share of
            the soft alignment.
        update_exact: in place of a gradient step, logits become the log of the soft alignment (for
            mem).
        focal_factor: exponent f: the gradient is that of (1 − p)^f times each frame's term.
        frame_weights_by_prior: frames are weighted by one over the average posterior of the labels
            that the soft alignment gives them; mean 1.
        prior_scale: exponent of the prior in sum_with_prior and sum_with_prior_sg.
        prior_scale_end: if given, that exponent goes there linearly, until the last step.
        prior_momentum: 0: the average posterior of this step; else the share of former steps in a
            moving average.
    """

    model: ModelName = "mem"
    loss: LossName = "sum"
    frames: int | None = None
    classes: int | None = None
    target: str | None = None
    topology: str = "ctc"
    fsa: Path | None = None
    input: str | None = None
    init: Literal["zero", "normal", "uniform", "identity"] = "zero"
    rnd_scale: float = 1.0
    blank_bias_init: float | None = None
    bias: bool = True
    hidden_dim: int = 10
    num_layers: int = 1
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    steps: int = 100
    seeds: str = "0"
    scale_update_inv_param_size: bool = False
    gradient_noise: float = 0.0
    weight_noise: float = 0.0
    logits_time_dropout: float = 0.0
    scale_sm_by_prior: bool = False
    scale_grads_by_1_m_prior: bool = False
    update_exact: bool = False
    focal_factor: float = 0.0
    frame_weights_by_prior: bool = False
    prior_scale: float = 1.0
    prior_scale_end: float | None = None
    prior_momentum: float = 0.0

    def __post_init__(self) -> None:
        check_options(
            self,
            "--",
            frames=at_least(1, MOST_LOGITS),
            classes=at_least(1, MOST_LOGITS),
            rnd_scale=SCALE,
            blank_bias_init=at_least(-1000, 1000),
            hidden_dim=SIZE,
            num_layers=at_least(1, 1000),
            lr=at_least(0, 10**6),
            steps=at_least(1, 10**9),
            gradient_noise=SCALE,
            weight_noise=SCALE,
            logits_time_dropout=below(1),
            focal_factor=at_least(0, 100),
            prior_scale=at_least(-1000, 1000),
            prior_scale_end=at_least(-1000, 1000),
            prior_momentum=below(1),
        )

    @cached_property
    def words(self) -> Words:
        """The target's labels, word by word; not with ``fsa``."""
        if self.topology in STANDARD:
            return STANDARD[self.topology][1]
        if self.target is None:
            return [list(range(self.classes or 1))]
        if not all(field.isdecimal() for field in self.target.replace("|", " ").split()):
            raise UserError(f"--target '{self.target}': labels are numbers, as in '0 0 1'")
        words = [[int(label) for label in word.split()] for word in self.target.split("|")]
        if not any(words):
            raise UserError("--target is empty: it needs a label at least")
        return [word for word in words if word]

    @property
    def kind(self) -> str:
        """Which of `TOPOLOGIES`."""
        return STANDARD[self.topology][0] if self.topology in STANDARD else self.topology

    @cached_property
    def graph(self) -> Graphs:
        """The target as an FSA over 0 … N."""
        self._check_names()
        if self.fsa is not None:
            return read_fsa(self.fsa)
        return chain(segments_of(self.kind, self.words, self.blank))

    @cached_property
    def blank(self) -> int:
        """N: the label of blank or silence, the last."""
        if self.classes is not None:
            return self.classes
        if self.fsa is not None:
            return max(arc.label for arc in arcs_of(self.graph))
        return 1 + max(label for word in self.words for label in word)

    @property
    def num_labels(self) -> int:
        """V: labels with blank."""
        return self.blank + 1

    @cached_property
    def input_labels(self) -> list[int] | None:
        """The input, a label per frame, if there is one."""
        if self.input is None:
            return None
        labels: list[int] = []
        for field in self.input.split():
            label, _, times = field.partition("x")
            if not label.isdecimal() or not (times or "1").isdecimal():
                raise UserError(f"--input: '{field}' is neither a label nor LABELxTIMES")
            labels += [int(label)] * int(times or "1")
        if not labels:
            raise UserError("--input is empty: it needs a frame at least")
        return labels

    @property
    def num_frames(self) -> int:
        """T."""
        if self.frames is not None:
            return self.frames
        return 100 if self.input_labels is None else len(self.input_labels)

    @cached_property
    def seed_list(self) -> range:
        """The seeds, one for each run."""
        first, colon, end = self.seeds.partition(":")
        if first.isdecimal() and (end.isdecimal() if colon else not end):
            seeds = range(int(first), int(end) if colon else int(first) + 1)
            if seeds and seeds[-1] < 2**32:  # numpy takes no larger ones
                return seeds
        raise UserError(f"--seeds '{self.seeds}': give FIRST:END, as in 0:200, or one number")

    def check(self) -> None:
        """Find what cannot be run.

        Raises:
            UserError: names the option and says what is wrong.
        """
        self._check_names()
        if len(self.seed_list) * self.num_frames * self.num_labels > MOST_LOGITS:
            raise UserError(
                f"{len(self.seed_list)} seeds of {self.num_frames} frames of {self.num_labels} "
                "labels are too many for the memory: lower --seeds, --frames or --classes"
            )
        if self.fsa is not None:
            largest = max(arc.label for arc in arcs_of(self.graph))
        else:
            largest = max(label for word in self.words for label in word)
        if largest > self.blank:
            raise UserError(
                f"label {largest} is not in 0 … {self.blank}: with --classes {self.blank} labels "
                f"are 0 … {self.blank - 1}, and {self.blank} is blank"
            )
        if self.fsa is None and largest == self.blank:
            raise UserError(
                f"the target has the label {self.blank}, which is blank: raise --classes"
            )
        self._check_input()
        if count_paths(self.graph, self.num_frames) == 0:
            raise UserError(
                f"no alignment of the target has {self.num_frames} frames; the shortest has "
                f"{shortest_path(self.graph)}: change --frames or --target"
            )
        if self.scale_sm_by_prior and self.prior_momentum and "prior" in self.loss:
            raise UserError(
                f"--scale-sm-by-prior and --loss {self.loss} would share one moving average: leave "
                "out one of them, or --prior-momentum"
            )
        if self.update_exact and self.model != "mem":
            raise UserError("--update-exact is for --model mem alone")

    def _check_names(self) -> None:
        names = [*TOPOLOGIES, *STANDARD]
        if self.topology not in names:
            raise UserError(f"--topology '{self.topology}': there are {', '.join(names)}")
        if self.target is not None and (self.topology in STANDARD or self.fsa is not None):
            other = "--fsa" if self.fsa is not None else f"--topology {self.topology}"
            raise UserError(f"{other} brings its own target: leave out --target")
        if self.fsa is not None and self.topology != "ctc":
            raise UserError("--fsa is a topology of its own: leave out --topology")

    def _check_input(self) -> None:
        needs_input = self.model not in ("bias", "mem", "mem+bias")
        if self.input_labels is None:
            if needs_input:
                raise UserError(f"--model {self.model} reads an input: give --input '1x4 0x8 1x4'")
            return
        if self.num_frames != len(self.input_labels):
            raise UserError(
                f"--frames {self.frames}, but --input has {len(self.input_labels)}: leave one out"
            )
        if max(self.input_labels) > self.blank:
            raise UserError(
                f"--input has the label {max(self.input_labels)}, not in 0 … {self.blank}"
            )
        if self.model.endswith("model_free") and self.blank != 1:
            raise UserError(f"--model {self.model} is for --classes 1 (a label and blank)")
