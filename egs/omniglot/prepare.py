"""Pen strokes of Omniglot: handwritten characters of many alphabets, split by drawer."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plateau.config import UserError, cli, load
from plateau.data.sequences import DEV, TEST, TRAIN, About, Sequence, with_steps, write_corpus
from plateau.data.strokes import FIELDS, to_offsets
from plateau.ranges import check_options
from plateau.text import decode

LAYOUT = "strokes_*.zip as published, or unpacked: strokes_*/ALPHABET/character01/0001_01.txt"
NAME = re.compile(r"strokes_[^/]+/([^/]+)/(character\d+)/\d+_(\d+)\.txt")
LARGEST_PIXEL = 1.0  # of all drawings; some have 0.79 or 0.84
SETS = {17: DEV, 18: DEV, 19: TEST, 20: TEST}  # by number of the drawer; all others train


@dataclass(frozen=True)
class OmniglotOptions:
    """How drawings become sequences.

    Args:
        dequantise: move each point at random within its pixel. Half of all dx are else exactly 0,
            and the density of what is always the same has no bound
    """

    dequantise: bool = True

    def __post_init__(self) -> None:
        check_options(self, "corpus")


def drawings(source: Path) -> Iterator[tuple[re.Match, Path, bytes]]:
    """The files of a folder or zip: match of `NAME`, what to call it in messages, and content.

    Raises:
        UserError: names a damaged zip, or what cannot be read in it.
    """
    if source.is_dir():
        for path in sorted(source.rglob("*.txt")):
            if match := NAME.fullmatch(path.relative_to(source.parent).as_posix()):
                yield match, path, path.read_bytes()
        return
    place = source
    try:
        with zipfile.ZipFile(source) as archive:
            for match in filter(None, map(NAME.fullmatch, sorted(archive.namelist()))):
                place = source / match[0]
                yield match, place, archive.read(match[0])
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise UserError(f"{place}: cannot be unpacked: {error}") from None


def parse(text: str, place: Path) -> list[np.ndarray]:
    """The strokes of a drawing, (T_i, 2) each, y upwards.

    Args:
        text: START, lines of x, y and time in ms, and BREAK after each stroke
        place: what to call it in messages

    Raises:
        UserError: names the line that is not of this form.
    """
    lines = text.removesuffix("\n").split("\n")
    if lines[0].strip() != "START":
        raise UserError(f"{place}:1: '{lines[0][:40]}' is not START")
    strokes, points = [], []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip() == "BREAK" and points:
            strokes.append(np.array(points))
            points = []
            continue
        try:
            x, y, _time = map(float, line.split(","))
        except ValueError:
            raise UserError(f"{place}:{number}: '{line[:40]}' is not: x,y,time") from None
        if not np.isfinite([x, y]).all():
            raise UserError(f"{place}:{number}: '{line[:40]}' has a coordinate that is not finite")
        points.append((x, y))
    if points or not strokes:
        raise UserError(f"{place}:{len(lines)}: ends without BREAK; a drawing has strokes that end")
    return strokes


def dequantised(offsets: np.ndarray, id: str) -> np.ndarray:
    """The offsets, (T, 3), of points that were moved at random within their pixels.

    So the mean log-density is a lower bound of the log-probability of the pixels, but for their
    area: Theis et al. 2016 (arXiv 1511.01844), section 3.1. Pixels differ between drawings; one is
    as large as the drawing's smallest step in x or y, at most 1.
    """
    steps = np.abs(offsets[:, :2])
    if not len(steps):
        return offsets
    half = min(steps[steps > 0].min(), LARGEST_PIXEL) / 2
    random = np.random.default_rng(zlib.crc32(id.encode()))
    moved = random.uniform(-half, half, (len(offsets) + 1, 2))
    return np.column_stack([offsets[:, :2] + np.diff(moved, axis=0), offsets[:, 2]])


def read_drawing(
    match: re.Match, place: Path, content: bytes, options: OmniglotOptions
) -> Sequence:
    """A drawing as a sequence; see `drawings`."""
    alphabet, character, drawer = match.groups()
    id = f"{alphabet}-{character}-{drawer}"
    try:
        offsets = to_offsets(parse(decode(content), place))
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    if options.dequantise:
        offsets = dequantised(offsets, id)
    return Sequence(id, offsets, f"{alphabet}-{drawer}", f"{alphabet} {character}")


def main(
    output: Path, corpus_dir: Path | None = None, config: Path | None = None, nj: int = 1
) -> None:
    """Write the sets train, dev and test of Omniglot's drawings; no drawer is in two.

    Args:
        output: data/omniglot
        corpus_dir: the folder that has the zips of strokes, or what was in them
        config: YAML with a section `corpus` of this option: dequantise
        nj: number of parallel processes; one does
    """
    options = OmniglotOptions() if config is None else load(OmniglotOptions, config, "corpus")
    if corpus_dir is None:
        raise UserError(f"give --corpus-dir, the folder that has {LAYOUT}")
    root = corpus_dir.resolve()
    sources = [root] if root.name.startswith("strokes_") else sorted(root.glob("strokes_*"))
    # A zip may lie beside the folder of what was in it, and small1 is a part of the whole.
    sets: dict[str, dict[str, Sequence]] = {TRAIN: {}, DEV: {}, TEST: {}}
    for source in sources:
        for match, place, content in drawings(source):
            drawing = read_drawing(match, place, content, options)
            sets[SETS.get(int(match[3]), TRAIN)].setdefault(drawing.id, drawing)
    if not all(sets.values()):
        raise UserError(f"{corpus_dir}: no drawings of all three sets\nexpected: {LAYOUT}")
    write_corpus(
        output,
        About("strokes", FIELDS),
        {name: with_steps(made.values(), "without a line") for name, made in sets.items()},
    )


if __name__ == "__main__":
    cli(main)
