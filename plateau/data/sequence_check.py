"""What is wrong with a corpus of sequences."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plateau.data.sequences import TRAIN, About, SequenceSet, read_about
from plateau.data.strokes import FIELDS
from plateau.errors import UserError


@dataclass(frozen=True)
class Fault:
    """Something wrong; as a string, one line.

    Args:
        kind: what faults of one sort share
        where: file, line and sequence
        what: what was seen
    """

    kind: str
    where: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}{f': {self.what}' if self.what else ''}"


def check_corpus(corpus_dir: Path) -> Iterator[Fault]:
    """All faults of a corpus, each value looked at.

    Raises:
        UserError: it is none, or a file of it is damaged.
    """
    about = read_about(corpus_dir)
    folders = sorted(path.parent for path in corpus_dir.glob("*/sequences.jsonl"))
    if corpus_dir / TRAIN not in folders:
        yield Fault(f"no set {TRAIN}", str(corpus_dir), "it has no sequences.jsonl")
    for folder in folders:
        yield from _check_set(SequenceSet(folder), about)


def _check_set(sequences: SequenceSet, about: About) -> Iterator[Fault]:
    path = sequences.folder / "sequences.jsonl"
    wanted = len(FIELDS) if about.kind == "strokes" else about.shape[0] * about.shape[1]
    if about.kind != "frames" and sequences.dim != wanted:
        shape = " × ".join(map(str, about.shape)) if about.kind == "images" else ", ".join(FIELDS)
        kind = "of another size"
        yield Fault(kind, str(sequences.folder), f"{sequences.dim} values of a step, not {shape}")
        return
    low, high, seen = np.inf, -np.inf, set()
    for index, id in enumerate(sequences.ids):
        where = f"{path}:{index + 1}: {id}"
        if id in seen:
            yield Fault("an id that is there twice", where)
        seen.add(id)
        try:
            values = sequences.values(index)
        except UserError as error:
            yield Fault("changed values", where, str(error))
            continue
        for kind, what in faults_of(values, about):
            yield Fault(kind, where, what)
        if len(values):
            low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
    if sequences.folder.name == TRAIN and about.kind == "strokes" and len(sequences):
        for name, smallest, largest in zip(FIELDS, low, high, strict=True):
            if smallest == largest:
                yield Fault("zero variance", str(path), f"{name} is always {smallest:g}")


def faults_of(values: np.ndarray, about: About) -> Iterator[tuple[str, str]]:
    """Kind and description of each fault of a sequence (T, D)."""
    if not len(values):
        one = "a single point" if about.kind == "strokes" else "empty"
        yield one, "it has no step"
        return
    if not np.isfinite(values).all():
        step, field = np.argwhere(~np.isfinite(values))[0]
        yield "not finite", f"value {field + 1} of step {step + 1} is {values[step, field]}"
        return
    if about.kind == "strokes":
        yield from _faults_of_strokes(values)
    elif (values == values.flat[0]).all():
        yield "zero variance", f"all values are {values.flat[0]:g}"
    if about.kind == "images":
        if len(values) > 1:
            yield "an image of several steps", f"it has {len(values)}"
        if values.min() < 0 or values.max() > 1:
            yield "not in [0, 1]", f"from {values.min():g} to {values.max():g}"


def _faults_of_strokes(values: np.ndarray) -> Iterator[tuple[str, str]]:
    pen = values[:, 2]
    if not np.isin(pen, (0, 1)).all():
        yield "a pen that is neither 0 nor 1", f"{pen[~np.isin(pen, (0, 1))][0]:g}"
    elif pen[-1] != 1:
        lifts = "it is lifted before" if pen.any() else "it is never lifted"
        yield "no pen lift at the end", lifts
    repeated = np.flatnonzero(~values[:, :2].any(axis=1))
    if len(repeated):
        what = f"{len(repeated)} of {len(pen)} steps have no length, the first is {repeated[0] + 1}"
        yield "repeated points", what
