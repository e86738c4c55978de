"""What TensorBoard shows of a model while it trains, and what is told of its latents."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from plateau.data.sequence_loading import SequenceBatch
from plateau.data.sequences import read_about
from plateau.models.latent import Terms
from plateau.models.subsampling import padding_mask
from plateau.report.drawings import drawings
from plateau.training.interfaces import Watch, Watched
from vrnn.model import SequenceModel
from vrnn.options import Options

COLLAPSED = 0.1  # nats a step: latents that say less say nothing
ACTIVE = 0.01  # nats a step: a dimension that says less is not used
SAMPLES = 6
LONGEST = 300  # steps of a sample


def make_watch(model: SequenceModel, options: Options) -> Watch:
    """KL of each latent dimension, parameters of all distributions, samples."""
    about = read_about(options.sequences)

    def watch(batch: SequenceBatch) -> Watched:
        terms = model(batch.values, batch.lengths)
        steps = ~padding_mask(batch.lengths, batch.values.shape[1])  # (N, T)
        values = model.norm(batch.values)[steps]
        statistics = model.core.output.statistics(terms.hidden[steps], values)
        per_dim = kl_per_dim(terms)
        samples = model.sample(SAMPLES, min(LONGEST, batch.values.shape[1])).cpu()
        return Watched(
            {"active_latents": float((per_dim > ACTIVE).sum()), "kl": float(per_dim.sum())},
            {"samples": drawings(list(samples), about), "kl_per_dim": _bars(per_dim)},
            {f"output_{name}": value.flatten() for name, value in statistics.items()}
            | ({"latents": terms.latents[steps].flatten()} if len(per_dim) else {}),
            notes(terms, statistics, options),
        )

    return watch


def kl_per_dim(terms: Terms) -> Tensor:
    """KL of each latent dimension (Z,), in nats a step."""
    return (terms.kl_per_dim.sum((0, 1)) / terms.lengths.sum()).cpu()


def notes(terms: Terms, statistics: dict[str, Tensor], options: Options) -> list[str]:
    """What looks wrong with a model, and what to try."""
    found = []
    per_dim = kl_per_dim(terms)
    if len(per_dim) and per_dim.sum() < COLLAPSED:
        found.append(
            f"the latents say {per_dim.sum():.3f} nats a step: the posterior has collapsed to the "
            "prior. Try bound.kl_schedule=linear, bound.free_nats=0.05, a weaker output "
            "(fewer components), or a smaller learning rate"
        )
    sigma = statistics.get("sigma", statistics.get("scale"))
    if sigma is not None:
        floor = options.output.min_sigma
        vanishing = float((sigma < 1.1 * floor).float().mean())
        if vanishing > 0.1:
            found.append(
                f"{vanishing:.0%} of the output's sigmas are at their floor, {floor:g}: the bound "
                "may grow without end. Are values repeated? Try a larger output.min_sigma"
            )
        if sigma.max() > 100:
            found.append(
                f"a sigma of the output is {sigma.max():.3g} standard deviations of the data: try "
                "a smaller learning rate, or training.clip_grad_norm"
            )
    return found


def _bars(values: Tensor) -> Figure:
    figure = Figure(figsize=(6, 2))
    axes = figure.subplots()
    axes.bar(range(len(values)), torch.as_tensor(values).tolist())
    axes.set_xlabel("latent dimension")
    axes.set_ylabel("KL, nats a step")
    return figure
