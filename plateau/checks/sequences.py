"""What stage 4 looks for in the sets of a corpus of sequences."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from plateau.config import UserError
from plateau.data.sequence_loading import SequenceBatch, SequenceLoadingOptions, make_batch
from plateau.data.sequences import TRAIN, Sequence, SequenceSet
from plateau.models.distributions import OutputOptions


def check_sets(sets: Mapping[str, SequenceSet], recurrent: bool) -> list[str]:
    """Sets that share what they should not, and sequences that are none.

    Args:
        sets: by name; `TRAIN` is among them.
        recurrent: the model goes from step to step.
    """
    train, notes = sets[TRAIN], []
    for name, found in sets.items():
        notes += _check_first(name, found)
        if name != TRAIN:
            notes += _check_overlap(name, found, train)
    if recurrent and max(train.lengths) == 1:
        notes.append(f"{TRAIN}: all sequences have one step: nothing recurs; see model=vae")
    elif recurrent and (short := train.lengths.count(1)):
        id = train.ids[train.lengths.index(1)]
        notes.append(f"{TRAIN}: {short} of {len(train)} sequences have one step, e.g. {id}")
    return notes


def _check_first(name: str, found: SequenceSet) -> list[str]:
    """The first two are two."""
    if len(found) < 2 or not np.array_equal(found.values(0), found.values(1)):
        return []
    return [f"{name}: its first two sequences, {found.ids[0]} and {found.ids[1]}, are the same"]


def _check_overlap(name: str, found: SequenceSet, train: SequenceSet) -> list[str]:
    notes, numbers = [], {key: number for number, key in enumerate(_keys(train))}
    if ids := sorted(set(found.ids) & set(train.ids)):
        notes.append(f"{name}: {len(ids)} ids are in {TRAIN} too, e.g. {ids[0]}")
    same = [
        (number, numbers[key])
        for number, key in enumerate(_keys(found))
        if key in numbers and np.array_equal(found.values(number), train.values(numbers[key]))
    ]
    if same:
        here, there = same[0]
        notes.append(
            f"{name}: {len(same)} sequences have the values of one in {TRAIN}, "
            f"e.g. {found.ids[here]} those of {train.ids[there]}"
        )
    if writers := sorted((set(found.writers) & set(train.writers)) - {""}):
        notes.append(f"{name}: {len(writers)} writers are in {TRAIN} too, e.g. {writers[0]}")
    return notes


def _keys(sequences: SequenceSet) -> list[tuple[int, int]]:
    """Of equal values, they are equal."""
    return list(zip(sequences.lengths, sequences.sums, strict=True))


def check_values(batch: SequenceBatch, options: OutputOptions) -> list[str]:
    """The values are such as the output gives probabilities to.

    Raises:
        UserError: an output of probabilities has none for them.
    """
    values = batch.values
    if options.kind == "bernoulli" and ((values < 0) | (values > 1)).any():
        outside = _first(batch, (values < 0) | (values > 1))
        raise UserError(
            f"{options.section}.kind is bernoulli, of 0 and 1, and {outside}; set another kind"
        )
    if options.kind == "bernoulli" and not ((values == 0) | (values == 1)).all():
        between = _first(batch, (values != 0) & (values != 1))
        return [
            f"{options.section}.kind is bernoulli, of 0 and 1, and {between}: what is reported "
            "is a cross-entropy and no bound; see loading.binarise"
        ]
    if options.kind == "logistics" and (values.abs() > 1).any():
        outside = _first(batch, values.abs() > 1)
        return [f"{options.section}.kind is logistics, from -1 to 1, and {outside}"]
    return []


def _first(batch: SequenceBatch, where: Tensor) -> str:
    n, t, d = where.nonzero()[0].tolist()
    return f"{batch.ids[n]} has {batch.values[n, t, d]:g} in step {t + 1}"


def longest_batch(sequences: SequenceSet, options: SequenceLoadingOptions) -> SequenceBatch:
    """The longest that a batch of training can be."""
    limit = options.max_steps or max(sequences.lengths)
    order = sorted(range(len(sequences)), key=lambda i: sequences.lengths[i])
    return make_batch(
        Sequence(sequences.ids[i], sequences.values(i)[:limit])
        for i in order[-options.batch_size :]
    )
