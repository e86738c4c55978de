"""From cuts to batches of features: buckets by duration, loaded ahead in worker processes."""

import multiprocessing
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

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
from torch.utils.data import DataLoader, Dataset

from plateau.config import UserError
from plateau.data.archives import check_array
from plateau.data.audio import check_there
from plateau.data.features import FRAME_SHIFT, FeatureOptions, make_extractor
from plateau.data.manifests import files_of
from plateau.ranges import above, at_least, check_options

T = TypeVar("T")


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

    def __post_init__(self) -> None:
        check_options(
            self,
            "loading",
            max_duration=above(0, 10**6),
            num_buckets=at_least(1, 10**4),
            num_workers=at_least(0, 256),
        )


@dataclass(frozen=True)
class Batch:
    """Utterances with their features, longest first."""

    features: Tensor  # (N, T, F), float32; beyond an utterance's length the values are arbitrary
    lengths: Tensor  # (N,), frames, int64
    texts: list[str]
    ids: list[str]
    seconds: float  # of audio, without padding

    things = "utterances"
    smaller = "cut it with a file segments, or leave it out"

    @staticmethod
    def amount(frames: int) -> str:
        """How long so many frames are."""
        return f"{frames * FRAME_SHIFT:.1f} s"

    @property
    def size(self) -> float:
        """How much of an epoch it is."""
        return self.seconds

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        features = self.features.to(device, non_blocking=True)
        return Batch(features, self.lengths.to(device), self.texts, self.ids, self.seconds)


# What torch, CUDA, k2 and C++ say where memory ran out, beside exceptions of their own for it.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was too little memory."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in OUT_OF_MEMORY)


@contextmanager
def enough_memory(batch: Any, option: str, at_once: int = 0) -> Iterator[None]:
    """Where memory runs out, say on what.

    Args:
        batch: what is worked on: a `Batch`, or another that has its ids, lengths and `amount`.
        option: what makes batches smaller.
        at_once: how many of its utterances are worked on at once; 0: all.

    Raises:
        UserError: names the longest utterance, the size of the batch, and the option to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = (str(error).strip() or "MemoryError").splitlines()[0]
        number = min(at_once or len(batch.ids), len(batch.ids))
        longest = int(batch.lengths.argmax())
        length = int(batch.lengths[longest])
        raise UserError(
            f"out of memory on a batch of {number} {batch.things}, {batch.amount(number * length)} "
            f"with their padding; the longest is {batch.ids[longest]}, {batch.amount(length)}\n"
            + (f"lower {option}" if number > 1 else batch.smaller)
            + f" (what was said: {said[:200]})"
        ) from None


class BatchLoader:
    """Batches of a set of cuts, in an order that depends on seed and epoch only.

    A sampler's own state runs ahead of what the model has seen when workers prefetch. So none is
    kept: a run that is resumed asks for the same epoch again and skips the batches it has done,
    which costs no loading.
    """

    unit = "s"  # of the sizes of batches: seconds of audio
    memory_option = "loading.max_duration"  # which makes batches smaller

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
        if features.on_the_fly:
            check_there(files_of(cut.recording for cut in cuts))
        self.total_size = sum(cut.duration for cut in cuts)
        self._num_workers = options.num_workers
        self._dataset = BatchDataset(features)
        num_buckets = min(options.num_buckets, len(cuts) // 2)
        order = {"shuffle": shuffle, "seed": seed, "rank": rank, "world_size": world_size}
        order |= {"max_duration": options.max_duration}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*eagerly read CutSet")
            if num_buckets > 1:
                self._sampler = DynamicBucketingSampler(cuts, num_buckets=num_buckets, **order)
            else:  # too few to estimate buckets from
                self._sampler = SimpleCutSampler(cuts, **order)

    def num_batches(self) -> int:
        """Batches of the first epoch, counted without loading; others have about as many."""
        self._sampler.set_epoch(0)
        return sum(1 for _ in self._sampler)

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch without the first ``skip``.

        Raises:
            UserError: the features of an utterance cannot be read, or a worker process ended.
        """
        self._sampler.set_epoch(epoch)
        return prefetched(self._dataset, _Skipping(self._sampler, skip), self._num_workers)


def prefetched(
    dataset: Dataset[T | UserError], batches: Iterable[Any], num_workers: int
) -> Iterator[T]:
    """What a dataset gives for each of ``batches``, by processes that load ahead.

    Args:
        dataset: where a batch cannot be read, it gives a `UserError` in place of it: raised in a
            worker process, it would come out of torch's loader with a traceback as its message.
        batches: what to ask it for.
        num_workers: processes; 0: this one.

    Raises:
        UserError: of the dataset; or a worker process ended.
    """
    loader = DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=num_workers,
        # Of its own: a loader draws a seed for its workers from the global generator, and so
        # a resumed epoch would go on with other random numbers than one that was not killed.
        generator=torch.Generator(),
    )
    try:
        if num_workers:
            multiprocessing.Queue()  # torch's loader needs some, and is untidy where it fails
        for batch in loader:
            yield _loaded_or_raise(batch)
    except (OSError, RuntimeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        of_workers = ("DataLoader worker", "shared memory", "shm", "/torch_")
        if not num_workers or not (
            isinstance(error, OSError) or any(words in str(error) for words in of_workers)
        ):
            raise
        raise UserError(
            f"a process that loads batches ended: {said[-1] if len(said) > 1 else said[0]}\n"
            f"they come through /dev/shm, {_size_of_shm()}; to load without it: "
            "loading.num_workers=0 (training goes on where it was)"
        ) from None


class _Skipping:
    """A sampler without its first batches."""

    def __init__(self, sampler: CutSampler, skip: int):
        self._sampler, self._skip = sampler, skip

    def __iter__(self) -> Iterator[CutSet]:
        return islice(iter(self._sampler), self._skip, None)


def load_batch(cuts: CutSet, features: FeatureOptions) -> Batch:
    """Load these cuts as one batch, in this process.

    Raises:
        UserError: the features of an utterance cannot be read.
    """
    return _loaded_or_raise(BatchDataset(features)[cuts])


def _loaded_or_raise(loaded: T | UserError) -> T:
    if isinstance(loaded, UserError):
        raise loaded
    return loaded


def _size_of_shm() -> str:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError as error:
        return f"which cannot be used here: {error.strerror}"
    return f"which has {usage.total / 1e6:.2f} MB, {usage.free / 1e6:.2f} MB of them free"


class _CheckedFeatures(PrecomputedFeatures):
    """Lhotse's reading of stored features, where these are as they were written."""

    def __call__(self, cuts: CutSet) -> tuple[Tensor, Tensor]:
        for cut in cuts:
            check_array(cut)
        return super().__call__(cuts)


class BatchDataset(K2SpeechRecognitionDataset):
    """Lhotse's dataset, with its nested dictionaries as a `Batch`.

    An utterance that cannot be read gives a `UserError` in place of the batch; see `prefetched`.
    """

    def __init__(self, options: FeatureOptions):
        strategy = (
            # One by one: see `compute_features`.
            OnTheFlyFeatures(make_extractor(options), use_batch_extract=False)
            if options.on_the_fly
            else _CheckedFeatures()
        )
        super().__init__(input_strategy=strategy, return_cuts=True)

    def __getitem__(self, cuts: CutSet) -> Batch | UserError:
        try:
            loaded: dict[str, Any] = super().__getitem__(cuts)
        except Exception as error:  # each of Lhotse's readers has exceptions of its own
            fault = None if is_out_of_memory(error) else self._fault(cuts)
            if fault is None:
                raise
            return fault
        supervisions = loaded["supervisions"]
        cuts_of_batch: Sequence[Any] = supervisions["cut"]
        return Batch(
            features=loaded["inputs"],  # (N, T, F)
            lengths=supervisions["num_frames"].to(torch.int64),  # (N,)
            texts=supervisions["text"],
            ids=[cut.id for cut in cuts_of_batch],
            seconds=sum(cut.duration for cut in cuts_of_batch),
        )

    def _fault(self, cuts: CutSet) -> UserError | None:
        """Which of these cuts cannot be read, and what to do."""
        for cut in cuts:
            try:
                self.input_strategy(CutSet.from_cuts([cut]))
            except Exception as error:
                said = (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
                if not cut.has_features:
                    audio = ", ".join(str(source.source) for source in cut.recording.sources)
                    return UserError(
                        f"utterance '{cut.id}': its audio cannot be read: {audio}: {said}\n"
                        "see what is wrong: python local/validate_data_dir.py DATA_DIR"
                    )
                archive = Path(cut.features.storage_path)
                state = f"{archive.stat().st_size} bytes" if archive.exists() else "no such file"
                return UserError(
                    f"utterance '{cut.id}': its features cannot be read: {archive} ({state}): "
                    f"{said}\nmake them again: rm -r {quote(str(archive.parent))}; then start the "
                    "same ./run.sh again, without --stage"
                )
        return None
