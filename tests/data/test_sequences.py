import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from plateau.data.sequence_loading import SequenceLoader, SequenceLoadingOptions, make_batch
from plateau.data.sequences import (
    About,
    Sequence,
    SequenceSet,
    read_about,
    with_steps,
    write_about,
    write_corpus,
    write_set,
)
from plateau.errors import UserError


def sequence(id: str, length: int, dim: int = 3) -> Sequence:
    values = np.random.default_rng([length, dim, *id.encode()]).normal(size=(length, dim))
    return Sequence(id, values.astype(np.float32), f"writer of {id}", f"tɔ́ŋ {id}")


@pytest.fixture
def sequences() -> list[Sequence]:
    lengths = random.Random(0).choices(range(1, 40), k=50)
    return [sequence(f"s{i}", length) for i, length in enumerate(lengths)]


@pytest.fixture
def folder(sequences, tmp_path) -> Path:
    write_set(tmp_path / "train", sequences)
    return tmp_path / "train"


def same(one: Sequence, other: Sequence) -> bool:
    return (one.id, one.writer, one.text) == (other.id, other.writer, other.text) and (
        np.array_equal(one.values, other.values)
    )


def test_what_is_read_is_what_was_written(sequences, folder):
    read = SequenceSet(folder)
    assert (len(read), read.dim) == (50, 3)
    assert read.lengths == [len(s.values) for s in sequences]
    assert all(same(*pair) for pair in zip(read, sequences, strict=True))
    # and numpy itself reads the file
    whole = np.load(folder / "values.npy")
    assert whole.dtype == np.float32
    assert np.array_equal(whole, np.concatenate([s.values for s in sequences]))


def test_about_is_read_as_written_and_last(tmp_path):
    about = About("images", shape=(8, 8))
    write_corpus(tmp_path, about, {"train": [sequence("a", 1, 64)]})
    assert read_about(tmp_path) == about
    with pytest.raises(UserError, match="no sequence to write"):
        write_corpus(tmp_path, about, {"train": []})
    with pytest.raises(UserError, match=r"is .* a corpus of sequences"):
        read_about(tmp_path)
    strokes = About("strokes", ("dx", "dy", "pen"))
    write_about(tmp_path, strokes)
    assert read_about(tmp_path) == strokes
    (tmp_path / "about.json").write_text('{"kin": 1}')
    with pytest.raises(UserError, match=r"about\.json: does not say"):
        read_about(tmp_path)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (sequence("a", 2), "two sequences have the id a"),
        (sequence("b", 2, 4), r"b has values of shape \(2, 4\)"),
        (Sequence("b", np.zeros(3, np.float32)), r"b has values of shape \(3,\)"),
    ],
)
def test_a_set_that_cannot_be_is_not_written(tmp_path, second, said):
    write_set(tmp_path, [sequence("old", 2)])
    with pytest.raises(UserError, match=said):
        write_set(tmp_path, [sequence("a", 3), second])
    assert SequenceSet(tmp_path).ids == ["old"]


def test_sequences_without_steps_are_left_out_and_told(capsys):
    given = [sequence("a", 0), sequence("b", 2), sequence("c", 0), sequence("d", 1)]
    assert [s.id for s in with_steps(given, "too short")] == ["b", "d"]
    assert capsys.readouterr().out == "left out 2 of 4, too short: a; …\n"
    assert len(list(with_steps(given[1:2], "too short"))) == 1
    assert capsys.readouterr().out == ""


def test_a_byte_changed_anywhere_is_an_error_that_names_the_file_or_changes_no_value(
    sequences, folder
):
    """Every byte of the header, and every 97th of the rest, each file cut at many places, too."""
    for name in ("values.npy", "sequences.jsonl"):
        path = folder / name
        whole = path.read_bytes()
        places = [*range(130), *range(130, len(whole), 97)]
        contents = [whole[:p] + bytes([whole[p] ^ 0x15]) + whole[p + 1 :] for p in places]
        contents += [whole[:p] for p in places]
        told = 0
        for content in contents:
            path.write_bytes(content)
            try:
                read = list(SequenceSet(folder))
            except UserError as error:
                assert str(folder) in str(error) and len(str(error).splitlines()) <= 3
                told += 1
                continue
            # the values are as they were, whatever became of a text or a space in the header
            pairs = zip(read, sequences, strict=False)
            assert all(np.array_equal(r.values, s.values) for r, s in pairs)
        print(f"{name}: {told} of {len(contents)} changes are told")
        assert told > len(contents) / 2
        path.write_bytes(whole)


def test_a_line_that_is_none_is_named(folder):
    path = folder / "sequences.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    for bad in ("[]", '{"id": 1}', "{", lines[4].replace(str(json.loads(lines[4])["length"]), "x")):
        path.write_text("\n".join([*lines[:4], bad, *lines[5:]]) + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"sequences\.jsonl:5: not a line"):
            SequenceSet(folder)
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    with pytest.raises(UserError, match=r"sequences\.jsonl: UTF-16"):
        SequenceSet(folder)


def test_a_batch_is_padded_with_zeros():
    batch = make_batch([sequence("a", 2), sequence("b", 4)])
    assert batch.ids == ["a", "b"] and batch.lengths.tolist() == [2, 4] and batch.size == 6
    assert torch.equal(batch.values[0, :2], torch.from_numpy(sequence("a", 2).values))
    assert not batch.values[0, 2:].any()


def epoch(folder: Path, number: int = 1, skip: int = 0, train: bool = True, **options):
    ranks = {name: options.pop(name) for name in ("rank", "world_size") if name in options}
    loading = SequenceLoadingOptions(**{"batch_size": 4, **options})
    loader = SequenceLoader(SequenceSet(folder), loading, train=train, seed=3, **ranks)
    return list(loader.batches(number, skip))


def test_some_are_from_all_over_the_set_and_cut(sequences, folder):
    loader = SequenceLoader(SequenceSet(folder), SequenceLoadingOptions(batch_size=1))
    batch = loader.some(4, longest=6)
    chosen = [sequences[n * len(sequences) // 4] for n in range(4)]
    assert batch.ids == [s.id for s in chosen]
    assert batch.lengths.tolist() == [min(6, len(s.values)) for s in chosen]
    for values, length, s in zip(batch.values, batch.lengths, chosen, strict=True):
        np.testing.assert_array_equal(values[:length], s.values[:6].astype(np.float32))
    assert loader.some(10**6, longest=1).ids == [s.id for s in sequences]


def test_an_epoch_has_each_sequence_once_in_an_order_of_its_own(sequences, folder):
    first, again, second = epoch(folder), epoch(folder), epoch(folder, 2)
    ids = [id for batch in first for id in batch.ids]
    assert sorted(ids) == sorted(s.id for s in sequences)
    assert [b.ids for b in again] == [b.ids for b in first] != [b.ids for b in second]
    assert [b.ids for b in epoch(folder, skip=5)] == [b.ids for b in first[5:]]
    # little padding: a batch's sequences are of similar length
    padded = sum(batch.values.shape[0] * batch.values.shape[1] for batch in first)
    assert padded < 1.15 * sum(len(s.values) for s in sequences)


def test_processes_share_an_epoch(folder):
    shares = [epoch(folder, rank=rank, world_size=3) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    ids = [id for share in shares for batch in share for id in batch.ids]
    # of 13 batches, one would be too many
    assert len(set(ids)) == len(ids) >= 46
    with pytest.raises(UserError, match=r"fewer batches than there are processes, 14: lower"):
        epoch(folder, rank=0, world_size=14)


def test_windows_cover_a_sequence_while_training_and_not_while_evaluating(sequences, folder):
    batches = epoch(folder, max_steps=7)
    assert max(batch.values.shape[1] for batch in batches) == 7
    assert sum(batch.size for batch in batches) == sum(len(s.values) for s in sequences)
    rows = {
        tuple(v)
        for b in batches
        for x, n in zip(b.values, b.lengths, strict=True)
        for v in x[:n].tolist()
    }
    assert rows == {tuple(v) for s in sequences for v in s.values.tolist()}
    batches = epoch(folder, max_steps=7, train=False)
    assert sum(len(batch.ids) for batch in batches) == 50


@pytest.fixture
def grey(tmp_path) -> Path:
    values = np.tile(np.array([[0, 0.25, 0.5, 0.75, 1]], np.float32), (1, 200))
    write_set(tmp_path / "grey", [Sequence(f"g{i}", values) for i in range(8)])
    return tmp_path / "grey"


def test_grey_values_become_zeros_and_ones(grey):
    def means(batches) -> torch.Tensor:
        values = torch.cat([b.values for b in batches])
        return values.reshape(-1, 5).mean(0)

    assert means(epoch(grey)).tolist() == [0, 0.25, 0.5, 0.75, 1]
    for train in (True, False):
        assert means(epoch(grey, train=train, binarise="fixed")).tolist() == [0, 0, 0, 1, 1]
    assert means(epoch(grey, train=False, binarise="dynamic")).tolist() == [0, 0, 0, 1, 1]
    drawn = epoch(grey, binarise="dynamic")
    assert set(torch.cat([b.values for b in drawn]).unique().tolist()) == {0, 1}
    expected = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    # 1600 draws each: five standard deviations
    assert ((means(drawn) - expected).abs() <= 5 * (expected * (1 - expected) / 1600).sqrt()).all()


def test_what_is_drawn_depends_on_seed_and_epoch_and_batch_only(grey):
    torch.manual_seed(1)
    first = epoch(grey, binarise="dynamic")
    torch.manual_seed(2)
    assert torch.equal(epoch(grey, binarise="dynamic")[1].values, first[1].values)
    assert torch.equal(epoch(grey, skip=1, binarise="dynamic")[0].values, first[1].values)
    assert not torch.equal(epoch(grey, 2, binarise="dynamic")[0].values, first[0].values)
    assert not torch.equal(first[0].values, first[1].values)
