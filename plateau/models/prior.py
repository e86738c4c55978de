"""The prior of labels, estimated while a model trains.

Divided by their prior, the posteriors of a frame are likelihoods but for a factor: the old recipe
of hybrid models (Bourlard, Morgan 1994, "Connectionist speech recognition"). In full-sum training
it takes from blank what it has for being frequent, and alignments become less peaky: Zeyer,
Schlüter, Ney 2021, "Why does CTC result in peaky behavior?" (arXiv:2105.14849); Huang et al. 2024,
"Less peaky and more accurate CTC forced alignment by label priors" (arXiv:2406.02560).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from plateau.ranges import Range, at_least, below, check_options


@dataclass(frozen=True)
class PriorOptions:
    """The label prior p(s) that posteriors are divided by, as p(s|x) / p(s)^scale.

    What is left is no probability: losses may be negative, and under another prior are another
    measure. The development set is measured under the prior of training as it is then.

    Args:
        estimator: what is averaged over

            - none: there is no prior
            - batch: this batch
            - epoch: the epoch before; in the first one the prior is uniform
            - moving_average: batches, the later the more

        source: what is averaged: the model's posteriors, or its soft alignments with
            the transcripts, under the prior that was in use before; these cost a second loss
        scale: exponent of the prior, 0 or more
        floor: the smallest prior probability; labels that are hardly ever there have this one
        decay: share of the former value in a moving average, at least 0 and below 1
    """

    estimator: Literal["none", "batch", "epoch", "moving_average"] = "none"
    source: Literal["posteriors", "soft_alignments"] = "posteriors"
    scale: float = 0.3
    floor: float = 1e-5
    decay: float = 0.99

    def __post_init__(self) -> None:
        floor = Range(0, 1, above_low=True, below_high=True)
        check_options(self, "loss.prior", scale=at_least(0, 100), floor=floor, decay=below(1))


class LabelPrior(nn.Module):
    """The prior in use and what it is made of, which checkpoints keep.

    It is a constant to the gradient, as in all of the literature above: what the model can do to
    the loss by way of its own average is not what is wanted.

    Args:
        vocab_size: V.
        options: which estimate.
    """

    prior: Tensor  # (V,), in use; before there is an estimate it is uniform, and changes nothing
    sums: Tensor  # (V,), of this epoch
    steps: Tensor  # (), batches seen

    def __init__(self, vocab_size: int, options: PriorOptions) -> None:
        super().__init__()
        self.options = options
        uniform = torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64)
        self.register_buffer("prior", uniform)
        self.register_buffer("sums", torch.zeros_like(uniform))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def log_prior(self) -> Tensor:
        """log p(s), (V,), float64, not below the logarithm of the floor."""
        return self.prior.clamp(min=self.options.floor).log()

    @torch.no_grad()
    def update(self, shares: Tensor, lengths: Tensor) -> None:
        """Count a batch of training; every process of a distributed training must do it.

        A batch that is not finite is passed over, as it is by the trainer.

        Args:
            shares: (N, T, V), how much of each frame falls to each label: posteriors, or soft
                alignments, in which an utterance without alignment has nothing but zeros.
            lengths: (N,), frames that count.
        """
        padding = torch.arange(shares.shape[1], device=shares.device) >= lengths[:, None]  # (N, T)
        shares = shares.masked_fill(padding.unsqueeze(2), 0.0)
        sums = shares.sum((0, 1), dtype=torch.float64)  # (V,)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        total = sums.sum()
        if not (total.isfinite() and total > 0):
            return
        if self.options.estimator == "epoch":
            self.sums += sums
        else:
            average = self.options.estimator == "moving_average" and self.steps > 0
            decay = self.options.decay if average else 0.0
            self.prior.copy_(decay * self.prior + (1 - decay) * sums / total)
        self.steps += 1

    def finish_epoch(self) -> None:
        """Told by the trainer that an epoch is over."""
        if self.sums.sum() > 0:
            self.prior.copy_(self.sums / self.sums.sum())
            self.sums.zero_()
