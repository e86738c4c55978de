"""Damaged archives of features: every flipped bit and every cut is found where they are read."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet

from plateau.config import UserError
from plateau.data.archives import CHECKSUM, check_array
from plateau.data.features import compute_features
from plateau.data.loading import BatchLoader, LoadingOptions, load_batch
from tests.training.test_trainer import assert_same_run
from tests.training.toy import FEATURES, make_cut_set, make_trainer

FLIPS, CUTS = 200, 20


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> tuple[CutSet, Path, bytes]:
    """Twelve utterances, their archive, and what is in it."""
    directory = tmp_path_factory.mktemp("archive")
    cuts = make_cut_set(directory)
    return cuts, directory / "fbank.lca", (directory / "fbank.lca").read_bytes()


def place(cut) -> range:
    """Where a cut's features are in the archive."""
    offset, *sizes = map(int, cut.features.storage_key.split(","))
    return range(offset, offset + sum(sizes))


def fault_of(cuts: CutSet, num_workers: int = 0) -> str:
    options = LoadingOptions(max_duration=2.5, num_buckets=2, num_workers=num_workers)
    with pytest.raises(UserError) as error:
        list(BatchLoader(cuts, options, FEATURES).batches())
    return str(error.value)


def flip(path: Path, content: bytes, bit: int) -> None:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)


def test_the_checksum_is_of_the_bytes_in_the_archive(archive):
    cuts, _, content = archive
    assert sum(len(place(cut)) for cut in cuts) == len(content)
    for cut in cuts:
        assert cut.custom[CHECKSUM] == zlib.crc32(content[place(cut).start : place(cut).stop])
        check_array(cut)


def test_every_flipped_bit_is_found_and_its_utterance_named(archive):
    cuts, path, content = archive
    bits = np.random.default_rng(0).choice(8 * len(content), FLIPS, replace=False)
    for bit in bits:
        flip(path, content, int(bit))
        (damaged,) = [cut.id for cut in cuts if int(bit) // 8 in place(cut)]
        first, second = fault_of(cuts).splitlines()
        assert first == (
            f"utterance '{damaged}': its features cannot be read: {path} ({len(content)} bytes): "
            "its checksum is not that of stage 2"
        )
        assert second.startswith(f"make them again: rm -r {path.parent}; then start the same ./run")
    path.write_bytes(content)
    assert sum(len(batch.ids) for batch in BatchLoader(cuts, LoadingOptions(), FEATURES).batches())


def test_every_cut_is_found(archive):
    cuts, path, content = archive
    path.write_bytes(content)
    for length in np.linspace(0, len(content) - 1, CUTS).astype(int):
        path.write_bytes(content[:length])
        fault = fault_of(cuts)
        assert f"its features cannot be read: {path} ({length} bytes): " in fault
        assert " bytes are there" in fault
    path.write_bytes(content)


def test_bytes_that_are_gone_from_the_middle_are_found(archive):
    """All that follows is then at another place."""
    cuts, path, content = archive
    path.write_bytes(content[:1000] + content[1001:])
    assert "its features cannot be read" in fault_of(cuts)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damage_is_said_through_worker_processes(archive, damage):
    cuts, path, content = archive
    if damage == "flip":
        flip(path, content, 8 * place(cuts[5]).start + 99)
    else:
        path.write_bytes(content[: place(cuts[5]).start + 9])
    fault = fault_of(cuts, num_workers=2)
    assert f"utterance '{cuts[5].id}': its features" in fault or damage == "cut"
    assert len(fault.splitlines()) == 2
    path.write_bytes(content)


def test_features_of_before_there_were_checksums_are_read(archive):
    cuts, *_ = archive
    older = CutSet.from_cuts(replace(cut, custom=None) for cut in cuts)
    assert load_batch(older, FEATURES).features.equal(load_batch(cuts, FEATURES).features)


def test_training_goes_on_where_it_was_when_the_features_are_made_again(tmp_path, capsys):
    cuts = make_cut_set(tmp_path / "data")
    make_trainer(cuts, tmp_path / "undisturbed").run()
    path = tmp_path / "data" / "fbank.lca"
    content = path.read_bytes()
    # Of the development set, which is read at the end of an epoch.
    flip(path, content, 8 * place(cuts[-1]).start + 99)
    with pytest.raises(UserError, match="its checksum is not that of stage 2"):
        make_trainer(cuts, tmp_path / "disturbed").run()
    path.unlink()
    again = compute_features(cuts.drop_features(), FEATURES, tmp_path / "data" / "fbank")
    assert path.read_bytes() == content
    capsys.readouterr()
    make_trainer(again, tmp_path / "disturbed").run()
    assert "last.safetensors: 0 epochs and 4 batches are done" in capsys.readouterr().out
    assert_same_run(tmp_path / "disturbed", tmp_path / "undisturbed")
