"""What the trainer and a recipe know of each other: losses, batches and their loaders."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """A batch's loss and what to report beside it.

    Args:
        total: sum over the batch, float32 scalar, in nats
        tokens: number of tokens that the batch's transcripts have; the loss that is minimised and
            reported is ``total / tokens``
        counts: further sums to report per counted frame, e.g. ``{"blank": …}``
        frames: number of frames that the counts are out of
    """

    total: Tensor
    tokens: int
    counts: dict[str, float]
    frames: int


@dataclass(frozen=True)
class Watched:
    """What a model does with a few utterances: by name, for TensorBoard; ``notes`` are printed."""

    scalars: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    histograms: dict[str, Tensor] = field(default_factory=dict)
    notes: Sequence[str] = ()


class AnyBatch(Protocol):
    """What the trainer needs to know of a batch; the loss knows the rest."""

    things: str  # what its ids are of: utterances, …
    ids: list[str]
    lengths: Tensor  # (N,)

    @property
    def size(self) -> float:
        """How much of an epoch it is, in the unit of its loader."""

    @staticmethod
    def amount(length: int) -> str:
        """How long one of this length is."""

    def to(self, device: torch.device) -> "AnyBatch":
        """The same batch with its tensors on ``device``."""


class Loader(Protocol):
    """Batches of a set, in an order that depends on seed and epoch only."""

    unit: str  # of sizes
    total_size: float
    memory_option: str  # which makes batches smaller

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[AnyBatch]:
        """The batches of an epoch without the first ``skip``."""


LossFunction = Callable[[nn.Module, AnyBatch], Loss]
Watch = Callable[[AnyBatch], Watched]
