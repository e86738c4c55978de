import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from plateau.config import UserError
from plateau.data.features import FeatureOptions, make_cuts
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.data.loading import Batch, BatchLoader, LoadingOptions, enough_memory, load_batch
from plateau.data.manifests import to_manifests
from tests.training.toy import FEATURES as TONES
from tests.training.toy import make_cut_set

ROOT = Path(__file__).parents[2]

FEATURES = FeatureOptions(8000, 20, "lhotse", on_the_fly=True)
OPTIONS = LoadingOptions(max_duration=1.5, num_buckets=4, num_workers=0)
COUNT = 25


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> CutSet:
    """25 segments of one recording, of 0.1 to 0.9 s."""
    directory = tmp_path_factory.mktemp("cuts")
    random = np.random.default_rng(0)
    soundfile.write(directory / "x.wav", random.uniform(-0.5, 0.5, 8000 * 15), 8000)
    utterances, start = [], 0.0
    for i in range(COUNT):
        end = start + random.uniform(0.1, 0.9)
        audio = str(directory / "x.wav")
        utterances.append(Utterance(f"u-{i:02}", "u", f"text {i}", audio, "rec", start, end))
        start = end
    write_data_dir(directory / "set", utterances)
    return make_cuts(*to_manifests(directory / "set"), FEATURES)


def ids(batches) -> list[list[str]]:
    return [batch.ids for batch in batches]


def names(cuts: CutSet) -> list[str]:
    return sorted(cut.id for cut in cuts)


def flat(batches: list[list[str]]) -> list[str]:
    return sorted(name for batch in batches for name in batch)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_duration", [0.5, 1.5, 1000])
def test_an_epoch_has_each_utterance_once(cuts, shuffle, max_duration):
    options = dataclasses.replace(OPTIONS, max_duration=max_duration)
    loader = BatchLoader(cuts, options, FEATURES, shuffle=shuffle)
    for epoch in (0, 1, 5):
        assert flat(ids(loader.batches(epoch))) == names(cuts)


def test_the_order_depends_on_seed_and_epoch_only(cuts):
    def order(seed, epoch, before=()):
        loader = BatchLoader(cuts, OPTIONS, FEATURES, shuffle=True, seed=seed)
        for other, count in before:  # epochs that were gone through, or begun
            for _, _ in zip(range(count), loader.batches(other), strict=False):
                pass
        torch.manual_seed(len(before))
        return ids(loader.batches(epoch))

    expected = order(1, 2)
    assert order(1, 2, before=[(0, 99), (1, 99)]) == expected
    assert order(1, 2, before=[(2, 3)]) == expected
    assert order(1, 2, before=[(2, 99), (7, 1), (2, 1)]) == expected
    assert order(1, 3) != expected
    assert order(2, 2) != expected


def test_without_shuffle_every_epoch_is_the_same(cuts):
    loader = BatchLoader(cuts, OPTIONS, FEATURES)
    assert ids(loader.batches(0)) == ids(loader.batches(1)) == ids(loader.batches())


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_skipped_batches_are_exactly_the_first(cuts, num_workers):
    options = dataclasses.replace(OPTIONS, num_workers=num_workers)
    whole = ids(BatchLoader(cuts, OPTIONS, FEATURES, shuffle=True, seed=4).batches(1))
    assert len(whole) > 5
    for skip in (1, 4, len(whole) - 1, len(whole), len(whole) + 3):
        loader = BatchLoader(cuts, options, FEATURES, shuffle=True, seed=4)
        assert ids(loader.batches(1, skip=skip)) == whole[skip:]


@pytest.mark.parametrize("max_duration", [1.5, 3.0])
def test_batches_are_within_max_duration_with_padding(cuts, max_duration):
    options = dataclasses.replace(OPTIONS, max_duration=max_duration)
    for shuffle in (True, False):
        for batch in BatchLoader(cuts, options, FEATURES, shuffle=shuffle).batches():
            durations = [cuts[name].duration for name in batch.ids]
            assert durations == sorted(durations, reverse=True)
            assert batch.seconds == pytest.approx(sum(durations))
            if len(durations) > 1:  # the longest may be one too much, see LoadingOptions
                assert len(durations) * durations[1] <= max_duration


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_tiny_sets(cuts, count, num_workers):
    few = cuts.subset(first=count)
    options = dataclasses.replace(OPTIONS, max_duration=100, num_workers=num_workers)
    for shuffle in (True, False):
        loader = BatchLoader(few, options, FEATURES, shuffle=shuffle)
        assert loader.total_size == pytest.approx(sum(cut.duration for cut in few))
        for epoch in (0, 1):
            assert flat(ids(loader.batches(epoch))) == names(few)


def test_a_set_that_is_read_from_a_file_as_it_goes(cuts, tmp_path):
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    lazy = CutSet.from_file(tmp_path / "cuts.jsonl.gz")
    loader = BatchLoader(lazy, OPTIONS, FEATURES, shuffle=True, seed=3)
    expected = BatchLoader(cuts, OPTIONS, FEATURES, shuffle=True, seed=3)
    assert loader.total_size == pytest.approx(expected.total_size)
    assert ids(loader.batches(1)) == ids(expected.batches(1))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_worker_processes_give_the_same(cuts, num_workers):
    def load(num_workers: int) -> list[Batch]:
        options = dataclasses.replace(OPTIONS, num_workers=num_workers)
        return list(BatchLoader(cuts, options, FEATURES, shuffle=True).batches(3))

    for batch, other in zip(load(0), load(num_workers), strict=True):
        assert (batch.ids, batch.texts) == (other.ids, other.texts)
        assert batch.seconds == other.seconds
        assert torch.equal(batch.lengths, other.lengths)
        assert torch.equal(batch.features, other.features)


def test_a_batch_has_what_it_says(cuts):
    options = dataclasses.replace(OPTIONS, max_duration=100)
    batch = max(BatchLoader(cuts, options, FEATURES).batches(), key=lambda batch: len(batch.ids))
    assert len(batch.ids) > 4
    assert batch.texts == [f"text {int(name[2:])}" for name in batch.ids]
    assert batch.features.dtype == torch.float32
    assert batch.lengths.dtype == torch.int64
    assert batch.features.shape == (len(batch.ids), int(batch.lengths.max()), 20)


def test_the_global_random_state_is_left_alone(cuts):
    """A resumed epoch makes another iterator, and goes on with the same random numbers."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for num_workers in (0, 1):
        options = dataclasses.replace(OPTIONS, num_workers=num_workers)
        list(BatchLoader(cuts, options, FEATURES, shuffle=True).batches())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_an_epoch(cuts, world_size):
    loaders = [
        BatchLoader(cuts, OPTIONS, FEATURES, shuffle=True, seed=1, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    parts = [ids(loader.batches(2)) for loader in loaders]
    assert len({len(part) for part in parts}) == 1  # or they would wait for each other for ever
    assert flat([batch for part in parts for batch in part]) == names(cuts)


def test_more_processes_than_utterances(cuts):
    """Lhotse then gives an utterance twice, so that no process is without one."""
    few = cuts.subset(first=2)
    parts = [
        ids(BatchLoader(few, OPTIONS, FEATURES, rank=rank, world_size=3).batches())
        for rank in range(3)
    ]
    assert [len(part) for part in parts] == [1, 1, 1]


@pytest.fixture
def stored(tmp_path) -> CutSet:
    """Utterances with stored features."""
    return make_cut_set(tmp_path, count=6)


ARCHIVE = {
    "gone": lambda path: path.unlink(),
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "not allowed": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("damage", ARCHIVE)
def test_features_that_cannot_be_read_are_named(stored, tmp_path, damage, num_workers):
    ARCHIVE[damage](tmp_path / "fbank.lca")
    options = LoadingOptions(max_duration=2.5, num_buckets=2, num_workers=num_workers)
    loader = BatchLoader(stored, options, TONES)
    with pytest.raises(UserError) as error:
        list(loader.batches())
    first, second = str(error.value).splitlines()
    assert re.match(r"utterance 'spk-0\d': its features cannot be read: ", first)
    assert f"{tmp_path}/fbank.lca (" in first
    assert second.startswith(f"make them again: rm -r {tmp_path}; ")
    with pytest.raises(UserError, match="its features cannot be read"):
        load_batch(stored, TONES)


def test_audio_that_cannot_be_read_is_named(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(8000), 8000)
    utterances = [Utterance("u-00", "u-00", "text", str(tmp_path / "x.wav"))]
    write_data_dir(tmp_path / "set", utterances)
    gone = make_cuts(*to_manifests(tmp_path / "set"), FEATURES)
    (tmp_path / "x.wav").unlink()
    with pytest.raises(UserError, match=r"'u-00': its audio cannot be read: .*x\.wav: "):
        load_batch(gone, FEATURES)


@pytest.mark.parametrize("size", ["1m", "4k"])
def test_a_small_shared_memory_is_said(tmp_path, size):
    """By a file system of that size in place of /dev/shm, where that can be mounted."""
    script = tmp_path / "load.py"
    script.write_text(
        "import torch\n"
        "from pathlib import Path\n"
        "from plateau.config import user_errors\n"
        "from plateau.data.loading import *\n"
        "from tests.training.toy import FEATURES, make_cut_set\n"
        f"cuts = make_cut_set(Path({str(tmp_path)!r}) / 'x', count=200)\n"
        "with user_errors():\n"
        "    list(BatchLoader(cuts, LoadingOptions(10**6, 1, 1), FEATURES).batches())\n"
    )
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    unshare = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, mount], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    command = [*unshare, f"{mount} && exec {sys.executable} {script}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 1
    first, second = (
        done.stderr.splitlines()[-2:] if size == "1m" else done.stderr.split("\n")[-3:-1]
    )
    assert "a process that loads batches ended: " in first
    megabytes = {"1m": "1.05", "4k": "0.00"}[size]
    assert f"/dev/shm, which has {megabytes} MB" in second and "loading.num_workers=0" in second


def test_other_errors_are_not_taken_for_want_of_memory(cuts):
    batch = load_batch(cuts.subset(first=2), FEATURES)
    for error in (RuntimeError("shapes differ"), ValueError("out of memory")):
        with pytest.raises(type(error), match=str(error)), enough_memory(batch, "loading"):
            raise error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    ],
)
def test_too_little_memory_names_the_longest_utterance(cuts, error):
    batch = load_batch(cuts.subset(first=5), FEATURES)
    longest = max(cuts.subset(first=5), key=lambda cut: cut.duration)
    with pytest.raises(UserError) as caught, enough_memory(batch, "decoding.batch_sizes", 2):
        raise error
    first, second = str(caught.value).splitlines()
    assert first.startswith("out of memory on a batch of 2 utterances, ")
    assert f"the longest is {longest.id}, {longest.duration:.1f} s" in first
    assert second.startswith("lower decoding.batch_sizes")
    alone = enough_memory(batch, "decoding.batch_sizes", 1)
    with pytest.raises(UserError, match="cut it with a file segments"), alone:
        raise error
