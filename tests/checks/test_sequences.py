import numpy as np
import pytest
import torch

from plateau.checks.sequences import check_sets, check_values, longest_batch
from plateau.config import UserError
from plateau.data.sequence_loading import SequenceBatch, SequenceLoadingOptions
from plateau.data.sequences import Sequence, SequenceSet, write_set
from plateau.models.distributions import OutputOptions


def a_set(folder, lengths, name="a", seed=0, writers=None):
    random = np.random.default_rng(seed)
    writers = writers or [name] * len(lengths)
    write_set(
        folder,
        (
            Sequence(f"{name}{n}", random.normal(size=(length, 3)), writer)
            for n, (length, writer) in enumerate(zip(lengths, writers, strict=True))
        ),
    )
    return SequenceSet(folder)


def copy(folder, sequences):
    write_set(folder, sequences)
    return SequenceSet(folder)


def test_sets_that_share_nothing_have_no_note(tmp_path):
    sets = {"train": a_set(tmp_path / "train", [3, 4, 5])}
    sets["test"] = a_set(tmp_path / "test", [3, 4], "b", seed=1)
    assert check_sets(sets, recurrent=True) == []


def test_planted_an_overlap_of_ids_values_and_writers(tmp_path):
    train = a_set(tmp_path / "train", [3, 4, 5], writers=["x", "y", ""])
    other = Sequence("a0", np.ones((3, 3)), "z")
    same = Sequence("b1", train.values(1), "")
    writer = Sequence("b2", np.ones((2, 3)), "y")
    test = copy(tmp_path / "test", [other, same, writer])
    assert check_sets({"train": train, "test": test}, recurrent=True) == [
        "test: 1 ids are in train too, e.g. a0",
        "test: 1 sequences have the values of one in train, e.g. b1 those of a1",
        "test: 1 writers are in train too, e.g. y",
    ]


def test_planted_the_first_two_are_one(tmp_path):
    one = np.ones((2, 3))
    train = copy(tmp_path / "train", [Sequence("a", one), Sequence("b", one)])
    note = "train: its first two sequences, a and b, are the same"
    assert check_sets({"train": train}, recurrent=True) == [note]


def test_planted_sequences_of_one_step(tmp_path):
    some = {"train": a_set(tmp_path / "some", [3, 1, 5])}
    every = {"train": a_set(tmp_path / "all", [1, 1, 1])}
    assert check_sets(some, recurrent=True) == ["train: 1 of 3 sequences have one step, e.g. a1"]
    assert "nothing recurs" in check_sets(every, recurrent=True)[0]
    assert check_sets(some, recurrent=False) == check_sets(every, recurrent=False) == []


def values(*numbers):
    return SequenceBatch(torch.tensor(numbers).view(1, -1, 1), torch.tensor([len(numbers)]), ["a"])


def test_planted_values_that_an_output_has_no_probability_for():
    assert check_values(values(0.0, 1.0), OutputOptions("bernoulli")) == []
    (note,) = check_values(values(0.0, 0.25), OutputOptions("bernoulli"))
    assert "a has 0.25 in step 2: what is reported is a cross-entropy" in note
    for outside in (2.0, -0.5):
        with pytest.raises(UserError, match=rf"kind is bernoulli.*a has {outside:g} in step 2"):
            check_values(values(0.0, outside), OutputOptions("bernoulli"))
    assert check_values(values(-1.0, 1.0), OutputOptions("logistics")) == []
    (note,) = check_values(values(0.0, -1.5), OutputOptions("logistics"))
    assert "a has -1.5 in step 2" in note
    assert check_values(values(-9.0, 9.0), OutputOptions("gaussian")) == []


def test_the_longest_batch(tmp_path):
    train = a_set(tmp_path / "train", [3, 9, 5, 7])
    batch = longest_batch(train, SequenceLoadingOptions(batch_size=3))
    assert batch.ids == ["a2", "a3", "a1"] and batch.values.shape == (3, 9, 3)
    windows = longest_batch(train, SequenceLoadingOptions(batch_size=2, max_steps=4))
    assert windows.lengths.tolist() == [4, 4] and windows.values.shape == (2, 4, 3)
