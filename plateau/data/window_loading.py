"""From windows to batches of features and words."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lhotse import CutSet
from torch import Tensor
from torch.utils.data import Dataset

from plateau.data.features import FRAME_SHIFT, FeatureOptions
from plateau.data.loading import Batch, BatchDataset, prefetched
from plateau.data.tokens import Tokenizer
from plateau.data.windows import PADDING, Windows
from plateau.errors import UserError

BLOCK = 20  # batches within which windows are sorted by length


@dataclass(frozen=True)
class WindowBatch(Batch):
    """Windows with their features, longest first, and their words.

    Of the fields of `Batch`, ``texts`` has the words of each window and ``ids`` its name.
    """

    words: Tensor  # (N, W) int64: token ids, and PADDING on the side that the options say
    spans: Tensor  # (N, W, 2) float32: start and end in steps of audio; zeros for padding

    things = "windows"
    smaller = "lower window.frames"

    @property
    def size(self) -> int:
        """How much of an epoch it is: its windows."""
        return len(self.ids)

    def to(self, device: torch.device) -> "WindowBatch":
        """The same batch with its tensors on ``device``."""
        names = ("features", "lengths", "words", "spans")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return dataclasses.replace(self, **moved)


class WindowDataset(Dataset):
    """Windows as batches, by their numbers.

    Args:
        windows: of a set.
        features: how they are computed, where they are not stored.
        tokenizer: of words: one token for each.
    """

    def __init__(self, windows: Windows, features: FeatureOptions, tokenizer: Tokenizer) -> None:
        self.windows, self._tokenizer = windows, tokenizer
        self._loaded = BatchDataset(features)

    def __getitem__(self, numbers: Sequence[int]) -> WindowBatch | UserError:
        options = self.windows.options
        windows = {window.cut.id: window for window in (self.windows[n] for n in numbers)}
        batch = self._loaded[CutSet.from_cuts(window.cut for window in windows.values())]
        if isinstance(batch, UserError):
            return batch
        words = torch.full((len(batch.ids), options.words), PADDING)  # (N, W)
        spans = torch.zeros(len(batch.ids), options.words, 2)
        for row, id in enumerate(batch.ids):
            own = windows[id].words
            place = slice(0, len(own)) if options.side == "right" else slice(-len(own), None)
            ids = [self._tokenizer.encode(word.label) for word in own]
            if any(len(tokens) != 1 for tokens in ids):
                return UserError(
                    f"window '{id}': its words are not a token each; windows take tokens.kind=word"
                )
            words[row, place] = torch.tensor(ids).squeeze(1)
            times = torch.tensor([(word.start, word.start + word.duration) for word in own])
            spans[row, place] = times / (FRAME_SHIFT * options.frame_stride)
        values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        return WindowBatch(**values, words=words, spans=spans)


class WindowLoader:
    """Batches of windows, in an order that depends on seed and epoch only; see `Loader`.

    Args:
        windows: of a set.
        features: how they are computed, where they are not stored.
        tokenizer: of words.
        num_workers: processes that load ahead; 0: this one.
        shuffle: a new order for each epoch; without it, that of the utterances.
        seed: of the order.
        rank: of this process.
        world_size: processes that share the batches; while shuffling, each gets as many.
    """

    unit = " windows"  # of the sizes of batches
    memory_option = "window.batch_size"  # which makes batches smaller

    def __init__(
        self,
        windows: Windows,
        features: FeatureOptions,
        tokenizer: Tokenizer,
        *,
        num_workers: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.total_size = len(windows)
        self._windows = windows
        self._dataset = WindowDataset(windows, features, tokenizer)
        self._num_workers, self._shuffle, self._seed = num_workers, shuffle, seed
        self._rank, self._world_size = rank, world_size

    def num_batches(self) -> int:
        """Batches of an epoch, of all processes."""
        return -(-len(self._windows) // self._windows.options.batch_size)

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[WindowBatch]:
        """The batches of an epoch without the first ``skip``, this process's share of them.

        Raises:
            UserError: features cannot be read, a worker process ended, or there are fewer batches
                than processes.
        """
        number, size = len(self._windows), self._windows.options.batch_size
        order = np.arange(number)
        if self._shuffle:
            random = np.random.default_rng([self._seed, epoch])
            order = random.permutation(number)
            # Those of similar length go together, within blocks of the random order.
            block = BLOCK * size
            lengths = self._windows.index.num_frames[order]
            order = order[np.lexsort((lengths, np.arange(number) // block))]
        starts = np.arange(0, number, size)
        if self._shuffle:
            starts = random.permutation(starts)
            # As many for each process: they wait for each other.
            starts = starts[: len(starts) // self._world_size * self._world_size]
            if not len(starts):
                raise UserError(
                    f"{self._windows.name}: {number} windows are fewer batches than there are "
                    f"processes, {self._world_size}: lower window.batch_size, or --num-gpus"
                )
        own = starts[self._rank :: self._world_size][skip:]
        chunks = (order[start : start + size].tolist() for start in own)
        return prefetched(self._dataset, chunks, self._num_workers)

    def some(self, numbers: Sequence[int]) -> WindowBatch:
        """These windows as one batch, loaded in this process.

        Raises:
            UserError: features cannot be read.
        """
        (batch,) = prefetched(self._dataset, [numbers], 0)
        return batch
