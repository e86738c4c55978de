"""From cuts to batches of features: buckets by duration, loaded ahead in worker processes."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from lhotse import CutSet
from lhotse.dataset import (
    DynamicBucketingSampler,
    K2SpeechRecognitionDataset,
    OnTheFlyFeatures,
    PrecomputedFeatures,
    SimpleCutSampler,
)
from lhotse.dataset.sampling.base import CutSampler
from torch import Tensor
from torch.utils.data import DataLoader

from plateau.data.features import FeatureOptions, make_extractor


@dataclass(frozen=True)
class LoadingOptions:
    """How cuts become batches.

    Args:
        max_duration: seconds of audio per batch, padding included; reduce it if memory runs out.
            Lhotse may go over it by the last utterance of a batch where that is the longest
        num_buckets: utterances of similar duration go together; more buckets pad less
        num_workers: processes that load ahead; 0 loads in the training process itself
    """

    max_duration: float = 200.0
    num_buckets: int = 10
    num_workers: int = 1


@dataclass(frozen=True)
class Batch:
    """Utterances with their features, longest first."""

    features: Tensor  # (N, T, F), float32; beyond an utterance's length the values are arbitrary
    lengths: Tensor  # (N,), frames, int64
    texts: list[str]
    ids: list[str]
    seconds: float  # of audio, without padding

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        features = self.features.to(device, non_blocking=True)
        return Batch(features, self.lengths.to(device), self.texts, self.ids, self.seconds)


class BatchLoader:
    """Batches of a set of cuts, in an order that depends on seed and epoch only.

    A sampler's own state runs ahead of what the model has seen when workers prefetch. So none is
    kept: a run that is resumed asks for the same epoch again and skips the batches it has done,
    which costs no loading.
    """

    def __init__(
        self,
        cuts: CutSet,
        options: LoadingOptions,
        features: FeatureOptions,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.total_seconds = sum(cut.duration for cut in cuts)
        self._num_workers = options.num_workers
        self._dataset = _BatchDataset(features)
        num_buckets = min(options.num_buckets, len(cuts) // 2)
        order = {"shuffle": shuffle, "seed": seed, "rank": rank, "world_size": world_size}
        order |= {"max_duration": options.max_duration}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*eagerly read CutSet")
            if num_buckets > 1:
                self._sampler = DynamicBucketingSampler(cuts, num_buckets=num_buckets, **order)
            else:  # too few to estimate buckets from
                self._sampler = SimpleCutSampler(cuts, **order)

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch without the first ``skip``."""
        self._sampler.set_epoch(epoch)
        loader = DataLoader(
            self._dataset,
            sampler=_Skipping(self._sampler, skip),
            batch_size=None,
            num_workers=self._num_workers,
            # Of its own: a loader draws a seed for its workers from the global generator, and so
            # a resumed epoch would go on with other random numbers than one that was not killed.
            generator=torch.Generator(),
        )
        return iter(loader)


class _Skipping:
    """A sampler without its first batches."""

    def __init__(self, sampler: CutSampler, skip: int):
        self._sampler, self._skip = sampler, skip

    def __iter__(self) -> Iterator[CutSet]:
        return islice(iter(self._sampler), self._skip, None)


def load_batch(cuts: CutSet, features: FeatureOptions) -> Batch:
    """Load these cuts as one batch, in this process."""
    return _BatchDataset(features)[cuts]


class _BatchDataset(K2SpeechRecognitionDataset):
    """Lhotse's dataset, with its nested dictionaries as a `Batch`."""

    def __init__(self, options: FeatureOptions):
        strategy = (
            # One by one: see `compute_features`.
            OnTheFlyFeatures(make_extractor(options), use_batch_extract=False)
            if options.on_the_fly
            else PrecomputedFeatures()
        )
        super().__init__(input_strategy=strategy, return_cuts=True)

    def __getitem__(self, cuts: CutSet) -> Batch:
        loaded: dict[str, Any] = super().__getitem__(cuts)
        supervisions = loaded["supervisions"]
        cuts_of_batch: Sequence[Any] = supervisions["cut"]
        return Batch(
            features=loaded["inputs"],  # (N, T, F)
            lengths=supervisions["num_frames"].to(torch.int64),  # (N,)
            texts=supervisions["text"],
            ids=[cut.id for cut in cuts_of_batch],
            seconds=sum(cut.duration for cut in cuts_of_batch),
        )
