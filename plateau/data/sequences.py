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
from shlex import quote
from typing import BinaryIO, Literal

import numpy as np
from torch import Tensor

from plateau.data.corpus import Corpus
from plateau.data.features import load_statistics
from plateau.errors import UserError
from plateau.io import read_json, replacing, write_json, write_text
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
    if not path.exists():
        raise UserError(f"{path}: no such file; is {corpus_dir} a corpus of sequences?")
    try:
        found = read_json(path)
        return About(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})
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
        self.ids, self.writers, self.texts, self.lengths, self.sums = [], [], [], [], []
        for number, text in enumerate(read_lines(path), start=1):
            try:
                line = json.loads(text)
                self.ids.append(str(line["id"]))
                self.writers.append(str(line["writer"]))
                self.texts.append(str(line["text"]))
                self.lengths.append(int(line["length"]))
                self.sums.append(int(line["crc32"]))
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

    def __getitem__(self, index: int) -> Sequence:
        """A sequence by its number, from 0.

        Raises:
            UserError: its values are not what was written.
        """
        return Sequence(self.ids[index], self.values(index), self.writers[index], self.texts[index])

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.ids)

    @property
    def all(self) -> np.ndarray:
        """The values of all sequences, (sum of the lengths, D), float64."""
        return np.asarray(self._values, dtype=np.float64)

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
        if zlib.crc32(found.tobytes()) != self.sums[index]:
            raise UserError(
                f"{self.folder / 'values.npy'}: the values of {self.ids[index]} were changed "
                "(their checksum differs): make the set again"
            )
        return found

    def __iter__(self) -> Iterator[Sequence]:
        """The sequences, one after the other."""
        return (self[index] for index in range(len(self)))


def sequence_corpus(root: Path, dev_set: str = "", test_sets: tuple[str, ...] = ()) -> Corpus:
    """The sets of a corpus of sequences, and which is for what."""
    return Corpus(root, dev_set, test_sets, mark="sequences.jsonl")


def write_statistics(root: Path) -> None:
    """Write ``statistics.json``: what a model normalises its input with, of the training set alone.

    Mean and standard deviation, over all steps, of each of the D values of strokes, but for the
    pen, which stays 0 or 1; of all samples of waveforms together; images stay as they are.

    Raises:
        UserError: a value never changes.
    """
    about, train = read_about(root), SequenceSet(root / TRAIN)
    mean, std = np.zeros(train.dim), np.ones(train.dim)
    if about.kind == "strokes":
        moved = [i for i, name in enumerate(about.fields) if name != "pen"]
        mean[moved], std[moved] = (f(0)[moved] for f in (train.all.mean, train.all.std))
    elif about.kind == "frames":
        mean[:], std[:] = train.all.mean(), train.all.std()
    if not (std > 0).all():
        raise UserError(
            f"{train.folder}: a value is the same in all steps, so there is nothing to learn: "
            f"value {int(np.argmin(std))} of {train.dim}"
        )
    write_json(root / "statistics.json", {"mean": mean.tolist(), "std": std.tolist()})


def read_statistics(root: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (D,), of a corpus of sequences.

    Raises:
        UserError: they are not there, or damaged.
    """
    path = root / "statistics.json"
    if not path.exists():
        command = f"python local/check_sequences.py {quote(str(root))}"
        raise UserError(f"{path}: no such file; make it with {command}")
    mean, std = load_statistics(path)
    if not (std > 0).all():
        raise UserError(f"{path}: a std is not above 0; remove it, and give the command again")
    return mean, std
