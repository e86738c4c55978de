"""Training toy models, hundreds of runs at once, and what each run came to."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from plateau.config import UserError
from plateau.graphs.dense import best_paths, emission_scores, mixed_loss, soft_alignment
from plateau.graphs.graph import stack
from toy_peaky.models import Model, initial_parameters, make_model
from toy_peaky.options import Options

FRAMES_AT_ONCE = 100_000  # of all runs together in one call: with k2 some 0.5 GB
TINY = 1e-20  # in place of 0 before a logarithm


@dataclass(frozen=True)
class Snapshot:
    """Posteriors and soft alignment of one run at one step."""

    posteriors: Tensor  # (T, V)
    soft_alignment: Tensor  # (T, V)


@dataclass(frozen=True)
class Result:
    """One run, as of its last step, after steps − 1 updates. Averages are over frames.

    Posteriors p are the softmax of the logits; with ``scale_sm_by_prior``, of the scaled ones.
    """

    seed: int
    loss: list[float]  # at each step, before its update; nats
    avg_softmax: list[float]  # (V,)
    avg_soft_alignment: list[float]  # (V,), under the scores of the loss
    min_blank_prob: float  # min_t p_t(blank)
    num_blank_argmax: int  # frames whose likeliest label is blank
    num_blank_viterbi: int  # frames of the best alignment that are blank
    viterbi: list[int]  # (T,): the best alignment under p; of equal ones, the first that is met
    peakiness: float  # max_s avg_softmax[s]: the share of time of the label that has most
    sharpness: float  # mean_t max_s p_t(s): how sure of a label the model is within a frame
    entropy: float  # mean_t of that of p_t, nats
    fer_viterbi_to_ref: float | None  # share of frames where viterbi is not the ground truth
    fer_softmax_to_ref: float | None  # the same for the likeliest label
    snapshots: dict[int, Snapshot] = field(repr=False)  # by step; the last is always there

    @property
    def last(self) -> Snapshot:
        """The snapshot of the last step."""
        return self.snapshots[len(self.loss) - 1]

    def steps_below(self, bound: float) -> float:
        """The first step whose loss is below ``bound``; inf if there is none."""
        return next((float(step) for step, loss in enumerate(self.loss) if loss < bound), math.inf)

    def record(self, dump: bool = False) -> dict[str, Any]:
        """What ``--json`` writes; with ``dump`` the posteriors (T, V) too."""
        values = {name: value for name, value in vars(self).items() if name != "snapshots"}
        if self.fer_viterbi_to_ref is None:
            del values["fer_viterbi_to_ref"], values["fer_softmax_to_ref"]
        if dump:
            values["posteriors"] = self.last.posteriors.tolist()
        return values


class Runs:
    """Runs in a batch: one for each seed of each options. R runs, padded to T frames.

    Options may differ in what their targets, inputs, lengths (but for ``mem``) and seeds are.
    """

    def __init__(self, configurations: Sequence[Options]):
        for options in configurations:
            options.check()
        if len({_shared(options) for options in configurations}) > 1:
            raise ValueError("options of one batch may differ in target, input and seeds alone")
        self.options = configurations[0]
        pairs = [(options, seed) for options in configurations for seed in options.seed_list]
        self.seeds = [seed for _, seed in pairs]
        self.lengths = torch.tensor([options.num_frames for options, _ in pairs])  # (R,)
        self.references = [options.input_labels for options, _ in pairs]
        self.graphs = stack([options.graph for options, _ in pairs])
        self.mask = torch.arange(int(self.lengths.max())) < self.lengths[:, None]  # (R, T)
        inputs = None
        if self.options.input is not None:
            inputs = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(labels) for labels in self.references], batch_first=True
            )  # (R, T)
        self.model: Model = make_model(self.options, inputs, self.lengths)
        drawn = [initial_parameters(o, self.model.shapes, seed) for o, seed in pairs]
        self.parameters = {
            name: torch.stack([run[name] for run in drawn]).requires_grad_()
            for name in self.model.shapes
        }  # (R, …) each
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def noise(self, shape: torch.Size, scale: float) -> Tensor:
        """Normal noise (R, …); each run draws its own, whatever the company."""
        draws = [torch.randn(shape[1:], generator=g, dtype=torch.double) for g in self._generators]
        return scale * torch.stack(draws)

    def frames_kept(self, dropout: float) -> Tensor:
        """Which frames a dropout leaves (R, T, 1); each run draws its own, whatever the company."""
        draws = [
            torch.rand(length, 1, generator=g)
            for length, g in zip(self.lengths.tolist(), self._generators, strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(draws, batch_first=True) >= dropout

    def time_average(self, x: Tensor) -> Tensor:
        """Mean over the frames that count: (R, T, V) to (R, V)."""
        return (x * self.mask.unsqueeze(2)).sum(1) / self.lengths.unsqueeze(1)

    def parts(self) -> list[slice]:
        """Runs to be computed together: k2 needs memory for every arc of every frame."""
        size = max(1, FRAMES_AT_ONCE // self.mask.shape[1])
        return [slice(i, i + size) for i in range(0, len(self.seeds), size)]

    def soft_alignment(self, scores: Tensor, loss: str) -> tuple[Tensor, Tensor]:
        """Losses (R,) and soft alignments γ (R, T, V) of scores, full sum or best path."""
        viterbi = {"max": 1.0, "sum+max": 0.5}.get(loss, 0.0)
        kind = partial(mixed_loss, viterbi=viterbi)
        parts = [
            soft_alignment(scores[part], self.lengths[part], self.graphs[part], kind)
            for part in self.parts()
        ]
        losses, gammas = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(gammas)

    def viterbi(self, log_probs: Tensor) -> list[list[int]]:
        """The best alignment of each run."""
        return [
            path
            for part in self.parts()
            for path in best_paths(log_probs[part], self.lengths[part], self.graphs[part])
        ]


def _shared(options: Options) -> Options:
    """What is left of options when all is out that may differ within a batch."""
    return dataclasses.replace(
        options,
        target=None,
        topology="ctc",
        fsa=None,
        input=None if options.input is None else "",
        seeds="",
        frames=options.num_frames if "mem" in options.model else None,
        classes=options.blank,
    )


class Prior:
    """The average posterior of each run, of this step or as a moving average, and its exponent."""

    def __init__(self, options: Options, runs: Runs):
        self._options, self._runs = options, runs
        self._former: Tensor | None = None  # (R, 1, V)

    def update(self, log_probs: Tensor) -> Tensor:
        """log p̄, (R, 1, V), of log p (R, T, V), with gradient through this step's part."""
        padding = ~self._runs.mask.unsqueeze(2)  # (R, T, 1)
        total = log_probs.masked_fill(padding, -math.inf).logsumexp(1, keepdim=True)
        log_prior = total - self._runs.lengths.double().log()[:, None, None]
        momentum = self._options.prior_momentum
        if momentum and self._former is not None:
            shares = [self._former + math.log(momentum), log_prior + math.log1p(-momentum)]
            log_prior = torch.logaddexp(*shares)
        self._former = log_prior.detach()
        return log_prior

    def scale(self, step: int) -> float:
        """The prior's exponent at this step."""
        start, end = self._options.prior_scale, self._options.prior_scale_end
        if end is None or self._options.steps == 1:
            return start
        return start + (end - start) * step / (self._options.steps - 1)


def train(
    configurations: Options | Sequence[Options], snapshots: Collection[int] = ()
) -> list[Result]:
    """Train all runs and tell what they came to, in the order of configurations and seeds.

    Args:
        configurations: options, or several that differ in target, input, frames and seeds only
            (models with parameters for each frame, ``mem``, need the same frames).
        snapshots: steps of which posteriors and soft alignments are kept, besides the last.

    Raises:
        UserError: impossible options, or a loss that is not finite.
    """
    if isinstance(configurations, Options):
        configurations = [configurations]
    runs = Runs(configurations)
    options = runs.options
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = optimizers[options.optimizer](runs.parameters.values(), lr=options.lr)
    sizes = {name: math.prod(shape) for name, shape in runs.model.shapes.items()}
    prior = Prior(options, runs)
    history, kept = [], {}
    for step in range(options.steps):
        losses, logits, log_probs, scores, gamma = _forward(runs, prior, step)
        _check_finite(losses, runs.seeds, step)
        history.append(losses)
        last = step == options.steps - 1
        if last or step in snapshots:
            kept[step] = (log_probs.detach().exp(), gamma)
        if last:
            break
        if options.update_exact:
            with torch.no_grad():
                runs.parameters["mem"].copy_(gamma.clamp(min=TINY).log())
            continue
        optimizer.zero_grad()
        _backward(runs, logits, log_probs, scores, gamma)
        for name, parameter in runs.parameters.items():
            if options.scale_update_inv_param_size:
                parameter.grad *= sizes[name] / max(sizes.values())
            if options.gradient_noise:
                parameter.grad += runs.noise(parameter.shape, options.gradient_noise)
        optimizer.step()
    return _results(runs, torch.stack(history, dim=1), log_probs.detach(), kept)


def loss_and_gradient(
    options: Options, parameters: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses (R,) and gradients (R, …) at given parameters (R, …): one point for each seed."""
    runs = Runs([options])
    for name, values in parameters.items():
        runs.parameters[name].data.copy_(values)
    losses, *tensors = _forward(runs, Prior(options, runs), step=0)
    _backward(runs, *tensors)
    return losses, {name: parameter.grad for name, parameter in runs.parameters.items()}


def _forward(runs: Runs, prior: Prior, step: int) -> tuple[Tensor, ...]:
    """Losses (R,), logits, log-probabilities, scores and soft alignments, (R, T, V) each."""
    logits = _logits(runs, prior)
    log_probs = logits.log_softmax(-1)
    scores = _scores(runs.options, logits, log_probs, prior, step)
    losses, gamma = runs.soft_alignment(scores, runs.options.loss)
    return losses, logits, log_probs, scores, gamma


def _logits(runs: Runs, prior: Prior) -> Tensor:
    """Logits (R, T, V) as the loss sees them: with the noise and the scaling that options ask."""
    options, parameters = runs.options, dict(runs.parameters)
    if options.weight_noise:
        for name, parameter in parameters.items():
            parameters[name] = parameter + runs.noise(parameter.shape, options.weight_noise)
    logits = runs.model.logits(parameters)
    if dropout := options.logits_time_dropout:
        logits = logits * runs.frames_kept(dropout) / (1 - dropout)
    if options.scale_sm_by_prior:
        normalised = logits - logits.detach().logsumexp(-1, keepdim=True)
        logits = normalised - prior.update(normalised.detach())
    return logits


def _scores(options: Options, logits: Tensor, log_probs: Tensor, prior: Prior, step: int) -> Tensor:
    """What alignments are scored by, (R, T, V)."""
    if options.loss == "gen_sum":
        return logits
    if options.loss == "sum_with_prior":
        return emission_scores(log_probs, prior.update(log_probs), prior.scale(step))
    if options.loss == "sum_with_prior_sg":
        return emission_scores(log_probs, prior.update(log_probs.detach()), prior.scale(step))
    return log_probs


def _backward(runs: Runs, logits: Tensor, log_probs: Tensor, scores: Tensor, gamma: Tensor) -> None:
    """Gradients of the parameters.

    Every loss here has the gradient of -Σ_t Σ_s γ_t(s) score_t(s) with γ held fixed (the auxiliary
    function of expectation maximisation); the modifiers weight the terms of that sum.
    """
    options = runs.options
    terms = -gamma * scores  # (R, T, V)
    if options.focal_factor:
        # Lin et al. 2017, "Focal loss for dense object detection".
        terms = terms * (1 - log_probs.exp()).clamp(min=TINY) ** options.focal_factor
    if options.frame_weights_by_prior:
        prior = runs.time_average(log_probs.detach().exp()).clamp(min=TINY).unsqueeze(1)
        weights = (gamma / prior).sum(-1, keepdim=True)  # (R, T, 1)
        terms = terms * weights / runs.time_average(weights).unsqueeze(1)
    (gradient,) = torch.autograd.grad(terms.sum(), logits)  # (R, T, V)
    if options.scale_grads_by_1_m_prior:
        gradient = gradient * (1 - runs.time_average(gamma).unsqueeze(1))
    logits.backward(gradient)


def _check_finite(losses: Tensor, seeds: list[int], step: int) -> None:
    if not losses.isfinite().all():
        run = int((~losses.isfinite()).nonzero()[0])
        raise UserError(
            f"the loss of seed {seeds[run]} is {losses[run].item()} at step {step}: "
            "try a lower --lr or --rnd-scale"
        )


def _results(
    runs: Runs, history: Tensor, log_probs: Tensor, kept: dict[int, tuple[Tensor, Tensor]]
) -> list[Result]:
    blank = runs.options.blank
    posteriors, gamma = kept[history.shape[1] - 1]
    average, average_gamma = runs.time_average(posteriors), runs.time_average(gamma)  # (R, V)
    mean = partial(_masked_mean, mask=runs.mask)
    entropy = mean(-(posteriors * log_probs).sum(-1))
    sharpness = mean(posteriors.amax(-1))
    likeliest = posteriors.argmax(-1)  # (R, T)
    results = []
    for run, path in enumerate(runs.viterbi(log_probs)):
        length = int(runs.lengths[run])
        reference = runs.references[run]
        argmax = likeliest[run, :length].tolist()
        results.append(
            Result(
                seed=runs.seeds[run],
                loss=history[run].tolist(),
                avg_softmax=average[run].tolist(),
                avg_soft_alignment=average_gamma[run].tolist(),
                min_blank_prob=posteriors[run, :length, blank].min().item(),
                num_blank_argmax=argmax.count(blank),
                num_blank_viterbi=path.count(blank),
                viterbi=path,
                peakiness=average[run].max().item(),
                sharpness=sharpness[run].item(),
                entropy=entropy[run].item(),
                fer_viterbi_to_ref=_frame_error(path, reference),
                fer_softmax_to_ref=_frame_error(argmax, reference),
                snapshots={
                    step: Snapshot(p[run, :length], g[run, :length])
                    for step, (p, g) in kept.items()
                },
            )
        )
    return results


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum(1) / mask.sum(1)


def _frame_error(labels: list[int], reference: list[int] | None) -> float | None:
    if reference is None:
        return None
    return sum(a != b for a, b in zip(labels, reference, strict=True)) / len(reference)
