"""From sequences to padded batches of similar lengths."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from plateau.data.sequences import Sequence, SequenceSet
from plateau.errors import UserError
from plateau.ranges import at_least, check_options


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences of similar length, padded with zeros at their ends."""

    values: Tensor  # (N, T, D), float32
    lengths: Tensor  # (N,), int64
    ids: list[str]

    things = "sequences"
    smaller = "leave it out, or cut it (loading.max_steps)"

    @staticmethod
    def amount(steps: int) -> str:
        """How long so many steps are."""
        return f"{steps} steps"

    @property
    def size(self) -> int:
        """How much of an epoch it is: its steps, without padding."""
        return int(self.lengths.sum())

    def to(self, device: torch.device) -> "SequenceBatch":
        """The same batch with its tensors on ``device``."""
        return SequenceBatch(self.values.to(device), self.lengths.to(device), self.ids)


def make_batch(sequences: Iterable[Sequence]) -> SequenceBatch:
    """Pad some sequences to one batch, in their order."""
    sequences = list(sequences)
    values = [torch.from_numpy(sequence.values) for sequence in sequences]
    return SequenceBatch(
        torch.nn.utils.rnn.pad_sequence(values, batch_first=True),
        torch.tensor([len(v) for v in values]),
        [sequence.id for sequence in sequences],
    )


@dataclass(frozen=True)
class SequenceLoadingOptions:
    """How sequences become batches.

    Args:
        batch_size: sequences in a batch
        max_steps: longer sequences are cut to windows of so many steps while training; 0: they are
            not. Evaluation always takes them whole
        binarise: of images, how grey values become 0 and 1: none; fixed, at 0.5; dynamic, drawn
            anew in each epoch with the grey value as probability, while training
    """

    batch_size: int = 64
    max_steps: int = 0
    binarise: Literal["none", "fixed", "dynamic"] = "none"

    def __post_init__(self) -> None:
        check_options(self, "loading", batch_size=at_least(1, 10**6), max_steps=at_least(0, 10**6))


class SequenceLoader:
    """Batches of a set in an order that depends on seed and epoch only.

    Sequences of similar length go together: they are sorted by length within blocks of
    ``BLOCK`` batches of a random order, and so batches differ from epoch to epoch.
    """

    BLOCK = 20
    unit = " steps"  # of the sizes of batches
    memory_option = "loading.batch_size"  # which makes batches smaller

    def __init__(
        self,
        sequences: SequenceSet,
        options: SequenceLoadingOptions,
        *,
        train: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._set, self._options, self._train = sequences, options, train
        self._seed, self._rank, self._world_size = seed, rank, world_size
        limit = options.max_steps if train and options.max_steps else 10**9
        # (index of the sequence, first step, end)
        self._windows = [
            (index, start, min(start + limit, length))
            for index, length in enumerate(sequences.lengths)
            for start in range(0, length, limit)
        ]
        self.total_size = sum(end - start for _, start, end in self._windows)

    def num_batches(self) -> int:
        """Batches of an epoch, of all processes."""
        return -(-len(self._windows) // self._options.batch_size)

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[SequenceBatch]:
        """The batches of an epoch without the first ``skip``, this process's share of them.

        Raises:
            UserError: values are not what was written, or there is no batch for a process.
        """
        size = self._options.batch_size
        order = sorted(self._windows, key=lambda w: w[2] - w[1])
        if self._train:
            random = np.random.default_rng([self._seed, epoch])
            order = [self._windows[i] for i in random.permutation(len(self._windows))]
            block = self.BLOCK * size
            blocks = [order[i : i + block] for i in range(0, len(order), block)]
            order = [w for b in blocks for w in sorted(b, key=lambda w: w[2] - w[1])]
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        if self._train:
            chunks = [chunks[i] for i in random.permutation(len(chunks))]
            # As many for each process: they wait for each other.
            chunks = chunks[: len(chunks) // self._world_size * self._world_size]
            if not chunks:
                raise UserError(
                    f"{self._set.folder}: {len(order)} sequences are fewer batches than there are "
                    f"processes, {self._world_size}: lower loading.batch_size, or --num-gpus"
                )
        numbered = list(enumerate(chunks))
        for number, chunk in numbered[self._rank :: self._world_size][skip:]:
            # A batch has its own random numbers: none are drawn for those that are skipped.
            yield self._batch(chunk, np.random.default_rng([self._seed, epoch, number]))

    def some(self, num: int, longest: int) -> SequenceBatch:
        """Up to ``num`` sequences from all over the set in one batch, cut to ``longest`` steps.

        Raises:
            UserError: values are not what was written.
        """
        lengths = self._set.lengths
        num = min(num, len(lengths))
        chosen = [n * len(lengths) // num for n in range(num)]
        chunk = [(index, 0, min(lengths[index], longest)) for index in chosen]
        return self._batch(chunk, np.random.default_rng(self._seed))

    def _batch(
        self, chunk: list[tuple[int, int, int]], random: np.random.Generator
    ) -> SequenceBatch:
        batch = make_batch(
            Sequence(self._set.ids[index], self._set.values(index)[start:end])
            for index, start, end in chunk
        )
        return dataclasses.replace(batch, values=self._binarised(batch.values, random))

    def _binarised(self, values: Tensor, random: np.random.Generator) -> Tensor:
        if self._options.binarise == "none":
            return values
        if self._options.binarise == "dynamic" and self._train:
            return (torch.from_numpy(random.random(values.shape)) < values).float()
        return (values > 0.5).float()
