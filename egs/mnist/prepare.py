"""MNIST, or anything in its files: images with labels."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plateau.config import UserError, cli, load
from plateau.data.sequences import DEV, TEST, TRAIN, About, Sequence, write_corpus

LAYOUT = "{train,t10k}-images-idx3-ubyte and -labels-idx1-ubyte, with or without .gz"
DEV_SHARE = 12  # of so many training images, one is in dev
TEST_SHARE = 10  # of so many images, one is in test where there are only those of t10k
SEED = 1  # of these choices, which are the same for everybody: t10k's first half is the easier one


@dataclass(frozen=True)
class MnistOptions:
    """There is nothing to choose."""


def parse_idx(content: bytes) -> np.ndarray:
    """An array of bytes in the IDX format: 0, 0, type, dimensions; their sizes; the values.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"starts with {content[:4].hex(' ')}, not 00 00 08, of bytes in IDX")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError("ends in its head")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    if len(content) - start != math.prod(shape):
        raise ValueError(f"has {len(content) - start} values; by its head {math.prod(shape)}")
    return np.frombuffer(content, np.uint8)[start:].reshape(shape)


def read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """Read ``name`` or ``name.gz``, an array of so many dimensions.

    Raises:
        UserError: there is none, or it is damaged.
    """
    paths = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if not paths:
        raise UserError(f"{folder}: there is no {name}, nor {name}.gz\nexpected: {LAYOUT}")
    try:
        content = paths[0].read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        values = parse_idx(content)
        if values.ndim != dimensions:
            raise ValueError(f"has {values.ndim} dimensions, not {dimensions}")
        if values.size == 0:
            raise ValueError("has no values")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{paths[0]}: {error}") from None
    return values


def read_part(folder: Path, part: str) -> tuple[list[Sequence], tuple[int, int]]:
    """The images of train or t10k with their labels, and rows and columns of an image."""
    images = read_idx(folder, f"{part}-images-idx3-ubyte", 3)  # (N, rows, columns)
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte", 1)  # (N,)
    if len(images) != len(labels):
        raise UserError(f"{folder}: {part} has {len(images)} images and {len(labels)} labels")
    found = [
        Sequence(f"{part}-{number:05d}", image.reshape(1, -1) / np.float32(255), text=str(label))
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return found, images.shape[1:]


def parted(images: list[Sequence], share: int) -> tuple[list[Sequence], list[Sequence]]:
    """All but one of ``share`` images, and the others, by chance but always the same."""
    order = np.random.default_rng(SEED).permutation(len(images))
    few = set(order[: len(images) // share].tolist())
    return (
        [image for number, image in enumerate(images) if number not in few],
        [image for number, image in enumerate(images) if number in few],
    )


def main(
    output: Path, corpus_dir: Path | None = None, config: Path | None = None, nj: int = 1
) -> None:
    """Write the sets train, dev and test of MNIST.

    Where there is only t10k, nine tenths of it are trained on.

    Args:
        output: data/mnist
        corpus_dir: the folder with the IDX files
        config: YAML whose section `corpus` is empty, as there is nothing to choose
        nj: number of parallel processes; one does
    """
    if config is not None:
        load(MnistOptions, config, section="corpus")
    if corpus_dir is None:
        raise UserError(f"give --corpus-dir, the folder that has {LAYOUT}")
    test, shape = read_part(corpus_dir, "t10k")
    if list(corpus_dir.glob("train-images-idx3-ubyte*")):
        train, of_train = read_part(corpus_dir, "train")
        if of_train != shape:
            raise UserError(f"{corpus_dir}: images of {of_train} pixels in train, {shape} in t10k")
    else:
        train, test = parted(test, TEST_SHARE)
    train, dev = parted(train, DEV_SHARE)
    write_corpus(output, About("images", shape=shape), {TRAIN: train, DEV: dev, TEST: test})


if __name__ == "__main__":
    cli(main)
