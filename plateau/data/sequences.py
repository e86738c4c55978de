"""Sequences that are no speech features: pen strokes, images (of one step), frames of waveforms.

A corpus of them is ``data/<corpus>/`` with ``about.json`` (`About`) and a folder for each set. That
has ``sequences.jsonl``, a line for each sequence (id, writer, text, length, crc32), and
``values.npy``, the values of all of them in that order, (sum of the lengths, D), float32.
"""

import dataclasses
import json
import tokenize
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from plateau.errors import UserError
from plateau.io import read_json, replacing, write_json, write_text
from plateau.ranges import at_least, check_options
from plateau.text import read_lines

TRAIN, DEV, TEST = "train", "dev", "test"
Kind = Literal["strokes", "images", "frames"]


@dataclass(frozen=True)
class About:
    """What the values of a corpus are.

    Args:
        kind: strokes, images or frames
        fields: names of the D values of a step where they have any: dx, dy, pen
        shape: rows and columns of an image
        sampling_rate: of waveforms, in Hz
    """

    kind: Kind
    fields: tuple[str, ...] = ()
    shape: tuple[int, int] = (0, 0)
    sampling_rate: int = 0


@dataclass(frozen=True)
class Sequence:
    """One drawing, image or recording.

    Args:
        id: its name, unlike all others of the set
        values: (T, D), float32
        writer: who made it
        text: what it says, if that is known
    """

    id: str
    values: np.ndarray
    writer: str = ""
    text: str = ""


def write_about(corpus_dir: Path, about: About) -> None:
    """Write ``about.json`` of a corpus."""
    write_json(corpus_dir / "about.json", dataclasses.asdict(about))


def read_about(corpus_dir: Path) -> About:
    """Read ``about.json`` of a corpus.

    Raises:
        UserError: there is none, or it is not one.
    """
    path = corpus_dir / "about.json"
    try:
        found = read_json(path)
        return About(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is {corpus_dir} a corpus of sequences?") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: does not say what a corpus of sequences is: {error}") from None


def write_set(folder: Path, sequences: Iterable[Sequence]) -> None:
    """Write a set; its values are never in memory all at once.

    Raises:
        UserError: two sequences have one id, or values are not (T, D) of one D, or there are none.
    """
    lines, ids, total, dim = [], set(), 0, None
    with replacing(folder / "values.npy") as temporary, temporary.open("wb") as file:
        _write_header(file, 0, 0)  # what it says is known last; its size is always the same
        for sequence in sequences:
            values = np.ascontiguousarray(sequence.values, dtype=np.float32)
            if values.ndim != 2 or values.shape[1] != (dim or values.shape[1]):
                raise UserError(f"{folder}: {sequence.id} has values of shape {values.shape}")
            if sequence.id in ids:
                raise UserError(f"{folder}: two sequences have the id {sequence.id}")
            ids.add(sequence.id)
            total, dim = total + len(values), values.shape[1]
            file.write(values.tobytes())
            line = {"id": sequence.id, "writer": sequence.writer, "text": sequence.text}
            line |= {"length": len(values), "crc32": zlib.crc32(values.tobytes())}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        if dim is None:
            raise UserError(f"{folder}: there is no sequence to write")
        file.seek(0)
        _write_header(file, total, dim)
    write_text(folder / "sequences.jsonl", "".join(lines))


def _write_header(file: BinaryIO, total: int, dim: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (total, dim)}
    np.lib.format.write_array_header_1_0(file, header)


def with_steps(sequences: Iterable[Sequence], why: str) -> Iterator[Sequence]:
    """The sequences that have a step; how many have none is told, with the first of them.

    Args:
        sequences: of one set
        why: what to tell of those without: ``shorter than a frame``
    """
    left_out, kept = [], 0
    for sequence in sequences:
        if len(sequence.values):
            kept += 1
            yield sequence
        else:
            left_out.append(sequence.id)
    if left_out:
        more = "; …" if len(left_out) > 1 else ""
        total = kept + len(left_out)
        print(f"left out {len(left_out)} of {total}, {why}: {left_out[0]}{more}")


def write_corpus(corpus_dir: Path, about: About, sets: Mapping[str, Iterable[Sequence]]) -> None:
    """Write the sets of a corpus, and last ``about.json``, without which it is none."""
    (corpus_dir / "about.json").unlink(missing_ok=True)
    for name, sequences in sets.items():
        write_set(corpus_dir / name, sequences)
    write_about(corpus_dir, about)


class SequenceSet:
    """A set that was written by `write_set`; values are read when they are asked for."""

    def __init__(self, folder: Path):
        """Open it.

        Raises:
            UserError: a file is missing or damaged.
        """
        self.folder = Path(folder)
        path = self.folder / "sequences.jsonl"
        self.ids, self.writers, self.texts, self.lengths, self._sums = [], [], [], [], []
        for number, text in enumerate(read_lines(path), start=1):
            try:
                line = json.loads(text)
                self.ids.append(str(line["id"]))
                self.writers.append(str(line["writer"]))
                self.texts.append(str(line["text"]))
                self.lengths.append(int(line["length"]))
                self._sums.append(int(line["crc32"]))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise UserError(f"{path}:{number}: not a line of a sequence: {error}") from None
        self._starts = np.cumsum([0, *self.lengths])
        values = self.folder / "values.npy"
        try:
            self._values = np.load(values, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
            # numpy reads the header as Python
            raise UserError(f"{values}: cannot be read: {error}") from None
        shape, kind = self._values.shape, self._values.dtype
        if len(shape) != 2 or shape[0] != self._starts[-1] or kind != np.float32:
            raise UserError(
                f"{values}: has shape {shape} of {kind}; by the lengths "
                f"in {path.name} it should be ({self._starts[-1]}, D) of float32"
            )

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Number of values of a step, D."""
        return self._values.shape[1]

    def values(self, index: int) -> np.ndarray:
        """The values of a sequence, (T, D), a copy.

        Raises:
            UserError: they are not what was written.
        """
        found = np.array(self._values[self._starts[index] : self._starts[index + 1]])
        if zlib.crc32(found.tobytes()) != self._sums[index]:
            raise UserError(
                f"{self.folder / 'values.npy'}: the values of {self.ids[index]} were changed "
                "(their checksum differs): make the set again"
            )
        return found

    def __iter__(self) -> Iterator[Sequence]:
        """The sequences, one after the other."""
        for index, id in enumerate(self.ids):
            yield Sequence(id, self.values(index), self.writers[index], self.texts[index])


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

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[SequenceBatch]:
        """The batches of an epoch without the first ``skip``, this process's share of them.

        Raises:
            UserError: values are not what was written.
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
            chunks = chunks[: len(chunks) // self._world_size * self._world_size] or chunks
        numbered = list(enumerate(chunks))
        for number, chunk in numbered[self._rank :: self._world_size][skip:]:
            # A batch has its own random numbers: none are drawn for those that are skipped.
            yield self._batch(chunk, np.random.default_rng([self._seed, epoch, number]))

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
