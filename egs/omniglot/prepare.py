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
from plateau.text import decode

LAYOUT = "strokes_*.zip as published, or unpacked: strokes_*/ALPHABET/character01/0001_01.txt"
NAME = re.compile(r"strokes_[^/]+/([^/]+)/(character\d+)/\d+_(\d+)\.txt")
SETS = {17: DEV, 18: DEV, 19: TEST, 20: TEST}  # by number of the drawer; all others train


@dataclass(frozen=True)
class OmniglotOptions:
    """There is nothing to choose."""


def drawings(source: Path) -> Iterator[tuple[str, bytes]]:
    """Names, from ``strokes_…`` on, and contents of the files of a folder or zip.

    Raises:
        UserError: names a damaged zip, or what cannot be read in it.
    """
    if source.is_dir():
        for path in sorted(source.rglob("*.txt")):
            yield path.relative_to(source.parent).as_posix(), path.read_bytes()
        return
    name = ""
    try:
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if NAME.fullmatch(name):
                    yield name, archive.read(name)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{source}: {name} cannot be unpacked: {error}") from None


def parse(text: str, place: str) -> list[np.ndarray]:
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


def main(
    output: Path, corpus_dir: Path | None = None, config: Path | None = None, nj: int = 1
) -> None:
    """Write the sets train, dev and test of Omniglot's drawings; no drawer is in two.

    Args:
        output: data/omniglot
        corpus_dir: the folder that has the zips of strokes, or what was in them
        config: YAML whose section `corpus` is empty, as there is nothing to choose
        nj: number of parallel processes; one does
    """
    if config is not None:
        load(OmniglotOptions, config, section="corpus")
    if corpus_dir is None:
        raise UserError(f"give --corpus-dir, the folder that has {LAYOUT}")
    root = corpus_dir.resolve()
    sources = [root] if root.name.startswith("strokes_") else sorted(root.glob("strokes_*"))
    # A zip may lie beside the folder of what was in it, and small1 is a part of the whole.
    sets: dict[str, dict[str, Sequence]] = {TRAIN: {}, DEV: {}, TEST: {}}
    for source in sources:
        for name, content in drawings(source):
            if not (match := NAME.fullmatch(name)):
                continue
            alphabet, character, drawer = match.groups()
            place = f"{source}/{name.partition('/')[2]}"
            try:
                offsets = to_offsets(parse(decode(content), place))
            except ValueError as error:
                raise UserError(f"{place}: {error}") from None
            id = f"{alphabet}-{character}-{drawer}"
            sequence = Sequence(id, offsets, f"{alphabet}-{drawer}", f"{alphabet} {character}")
            sets[SETS.get(int(drawer), TRAIN)].setdefault(id, sequence)
    if not all(sets.values()):
        raise UserError(f"{corpus_dir}: no drawings of all three sets\nexpected: {LAYOUT}")
    write_corpus(
        output,
        About("strokes", FIELDS),
        {name: with_steps(made.values(), "without a line") for name, made in sets.items()},
    )


if __name__ == "__main__":
    cli(main)
