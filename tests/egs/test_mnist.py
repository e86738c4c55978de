import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from plateau.config import UserError
from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import SequenceSet, read_about

REAL = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.astype(np.uint8).tobytes()


def write(folder: Path, part: str, number: int, shape=(3, 4), suffix: str = "") -> np.ndarray:
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(number).integers(0, 256, (number, *shape))
    pack = gzip.compress if suffix else bytes
    for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(number) % 10)):
        (folder / f"{part}-{kind}-ubyte{suffix}").write_bytes(pack(idx(values)))
    return images


def read(folder: Path) -> dict[str, SequenceSet]:
    return {name: SequenceSet(folder / name) for name in ("train", "dev", "test")}


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_published_parts_are_train_and_test(mnist, tmp_path, suffix):
    images = {
        part: write(tmp_path / "idx", part, number, suffix=suffix)
        for part, number in (("train", 48), ("t10k", 20))
    }
    mnist.main(tmp_path / "data", tmp_path / "idx")
    sets = read(tmp_path / "data")
    assert {name: len(s) for name, s in sets.items()} == {"train": 44, "dev": 4, "test": 20}
    assert read_about(tmp_path / "data").shape == (3, 4)
    seen = {id for s in sets.values() for id in s.ids}
    assert len(seen) == 68 and set(sets["test"].ids) == {f"t10k-{n:05d}" for n in range(20)}
    for image in (image for s in sets.values() for image in s):
        part, number = image.id.split("-")
        expected = images[part][int(number)].reshape(1, 12) / 255
        assert np.allclose(image.values, expected, atol=1e-7)
        assert image.values.min() >= 0 and image.values.max() <= 1
        assert image.text == str(int(number) % 10)
    assert list(check_corpus(tmp_path / "data")) == []


def test_t10k_alone_is_parted_always_in_the_same_way(mnist, tmp_path):
    write(tmp_path / "idx", "t10k", 120)
    for name in ("one", "two"):
        mnist.main(tmp_path / name, tmp_path / "idx")
    sets = read(tmp_path / "one")
    assert {name: len(s) for name, s in sets.items()} == {"train": 99, "dev": 9, "test": 12}
    assert len({id for s in sets.values() for id in s.ids}) == 120
    # of both halves, of which the first is the easier one
    assert 0 < sum(id < "t10k-00060" for id in sets["test"].ids) < 12
    assert {n: s.ids for n, s in read(tmp_path / "two").items()} == {
        n: s.ids for n, s in sets.items()
    }


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=1, max_dims=4, max_side=4)))
def test_what_is_written_as_idx_is_parsed(mnist, values):
    assert np.array_equal(mnist.parse_idx(idx(values)), values)


@given(st.binary(max_size=40) | st.binary(max_size=12).map(lambda rest: b"\0\0\x08" + rest))
def test_any_bytes_are_an_array_or_a_value_error(mnist, content):
    try:
        values = mnist.parse_idx(content)
    except ValueError:
        return
    assert idx(values) == content


@given(st.integers(0, 43))
def test_a_file_that_ends_early_is_an_error(mnist, length):
    content = idx(np.ones((3, 3, 3)))
    assert len(content) == 43
    if length < 43:
        with pytest.raises(ValueError, match=r"starts with|ends in its head|has \d+ values"):
            mnist.parse_idx(content[:length])


def images(folder: Path) -> Path:
    return folder / "t10k-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: images(f).unlink(), "there is no t10k-images-idx3-ubyte, nor .*gz\nexpected"),
        (lambda f: images(f).write_bytes(images(f).read_bytes()[:-1]), "ubyte: has 1439 values"),
        (lambda f: images(f).write_bytes(b"\x89PNG"), "ubyte: starts with 89 50 4e 47"),
        (lambda f: images(f).write_bytes(b""), "ubyte: starts with"),
        (
            lambda f: images(f).write_bytes(gzip.compress(idx(np.ones((9, 3, 4))))[:30]),
            "ubyte: Compressed file ended",
        ),
        (lambda f: images(f).write_bytes(idx(np.ones(9))), "ubyte: has 1 dimensions, not 3"),
        (lambda f: images(f).write_bytes(idx(np.ones((0, 3, 4)))), "ubyte: has no values"),
        (
            lambda f: images(f).write_bytes(idx(np.ones((9, 3, 4)))),
            "t10k has 9 images and 120 labels",
        ),
        (lambda f: write(f, "train", 24, (5, 5)), r"images of \(5, 5\) pixels in train, \(3, 4\)"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(mnist, tmp_path, damage, said):
    write(tmp_path / "idx", "t10k", 120)
    damage(tmp_path / "idx")
    with pytest.raises(UserError, match=said) as error:
        mnist.main(tmp_path / "data", tmp_path / "idx")
    assert len(str(error.value).splitlines()) <= 3
    assert not (tmp_path / "data").exists()


def test_mistakes_are_told(mnist, tmp_path):
    with pytest.raises(UserError, match="give --corpus-dir"):
        mnist.main(tmp_path / "data")


@pytest.mark.skipif(not REAL.is_dir(), reason="the published files are not there")
def test_the_published_files(mnist, tmp_path):
    mnist.main(tmp_path, REAL)
    sets = read(tmp_path)
    assert {name: len(s) for name, s in sets.items()} == {"train": 8250, "dev": 750, "test": 1000}
    texts = "".join(text for s in sets.values() for text in s.texts)
    # the counts of labels in the published test set
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert [texts.count(digit) for digit in "0123456789"] == counts
    assert read_about(tmp_path).shape == (28, 28)
