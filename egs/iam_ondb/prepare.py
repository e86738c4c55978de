"""Lines of handwriting of IAM-OnDB, in the writer-independent sets of its task 1."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from plateau.config import UserError, cli, load
from plateau.data.sequences import DEV, TEST, TRAIN, About, Sequence, with_steps, write_corpus
from plateau.data.strokes import FIELDS, to_offsets
from plateau.ranges import at_least, check_options
from plateau.text import normalise, read_lines, read_text

LAYOUT = "lineStrokes/a01/a01-000/a01-000u-01.xml, ascii/, original/, and the lists trainset.txt …"
LISTS = {
    TRAIN: "trainset.txt",
    DEV: "testset_v.txt",
    "dev_t": "testset_t.txt",  # a second validation set, which Graves 2013 trained on
    TEST: "testset_f.txt",
}
FORM = re.compile(r"(([a-z]\d\d)-\d{3})([a-z]?)")


@dataclass(frozen=True)
class IamOndbOptions:
    """How offsets are made.

    Args:
        clip: dx and dy that are larger are made this, in units of the corpus; 0: none are
    """

    clip: float = 500.0

    def __post_init__(self) -> None:
        check_options(self, "corpus", clip=at_least(0, 10**9))


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        UserError: it cannot be read, or is not XML.
    """
    try:
        return ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path}: not XML: {error}") from None


def read_strokes(path: Path) -> list[np.ndarray]:
    """The strokes of a line, (T_i, 2) each, y upwards.

    Raises:
        UserError: names the stroke and the point that is none.
    """
    strokes = []
    for number, stroke in enumerate(parse_xml(path).iter("Stroke"), start=1):
        points = []
        for place, point in enumerate(stroke.iter("Point"), start=1):
            try:
                points.append((float(point.attrib["x"]), -float(point.attrib["y"])))
            except (KeyError, ValueError):
                points.append((np.nan, np.nan))
            if not np.isfinite(points[-1]).all():
                raise UserError(
                    f"{path}: point {place} of stroke {number} is {point.attrib}; "
                    "it must have numbers x and y"
                )
        if points:
            strokes.append(np.array(points))
    if not strokes:
        raise UserError(f"{path}: has no stroke with a point")
    return strokes


def read_transcripts(path: Path) -> list[str]:
    """The lines of text below ``CSR:``; none where there is no such file or no ``CSR:``."""
    _, _, text = read_text(path).partition("CSR:") if path.exists() else ("", "", "")
    return [normalise(line) for line in text.splitlines() if line.strip()]


def read_writer(root: Path, form: re.Match) -> str:
    """Who wrote a form; its name stands for its writer where that is not told."""
    page, group, letter = form.groups()
    path = root / "original" / group / page / f"strokes{letter}.xml"
    if path.exists():
        for element in parse_xml(path).iter():
            if writer := element.get("writerID"):
                return writer
    return form[0]


def read_form(root: Path, form: re.Match, clip: float) -> list[Sequence]:
    """The lines of a form."""
    page, group, _ = form.groups()
    paths = sorted((root / "lineStrokes" / group / page).glob(f"{form[0]}-*.xml"))
    if not paths:
        raise UserError(f"{root}: no lineStrokes/{group}/{page}/{form[0]}-01.xml, which is listed")
    texts = dict(enumerate(read_transcripts(root / "ascii" / group / page / f"{form[0]}.txt"), 1))
    writer = read_writer(root, form)
    lines = []
    for path in paths:
        offsets = to_offsets(read_strokes(path))
        if clip:
            offsets[:, :2] = offsets[:, :2].clip(-clip, clip)
        number = path.stem.rpartition("-")[2]
        text = texts.get(int(number), "") if number.isdigit() else ""
        lines.append(Sequence(path.stem, offsets, writer, text))
    return lines


def read_list(root: Path, name: str) -> list[re.Match]:
    """The forms of a set.

    Raises:
        UserError: there is no such list, or it names what is no form.
    """
    path = next((p for p in (root / name, root / "task1" / name) if p.exists()), root / name)
    forms = []
    for number, line in enumerate(read_lines(path), start=1):
        form = FORM.fullmatch(line.strip())
        if form:
            forms.append(form)
        elif line.strip():
            raise UserError(f"{path}:{number}: '{line[:40]}' is no form, such as a01-000u")
    return forms


def tell_oddities(sets: Mapping[str, list[Sequence]]) -> None:
    """Say which lines have no text, and which writers are in two sets; it should be none."""
    lines = [line for part in sets.values() for line in part]
    if silent := [line.id for line in lines if not line.text]:
        print(f"warning: {len(silent)} of {len(lines)} lines have no text, as {silent[0]}")
    where = defaultdict(set)
    for name, part in sets.items():
        for line in part:
            where[line.writer].add(name)
    if shared := sorted(writer for writer, names in where.items() if len(names) > 1):
        names = ", ".join(sorted(where[shared[0]]))
        print(f"warning: {len(shared)} writers are in several sets: {shared[0]} in {names}")


def main(
    output: Path, corpus_dir: Path | None = None, config: Path | None = None, nj: int = 1
) -> None:
    """Write the sets train, dev, dev_t and test of IAM-OnDB.

    Args:
        output: data/iam_ondb
        corpus_dir: the folder that has lineStrokes, ascii, original, and the lists of the sets
        config: YAML with a section `corpus` of this option: clip
        nj: number of parallel processes; one does
    """
    options = IamOndbOptions() if config is None else load(IamOndbOptions, config, "corpus")
    if corpus_dir is None:
        raise UserError(f"give --corpus-dir, the folder that has {LAYOUT}")
    if not (corpus_dir / "lineStrokes").is_dir():
        raise UserError(f"{corpus_dir}: has no folder lineStrokes\nexpected: {LAYOUT}")
    sets = {
        name: [
            line
            for form in read_list(corpus_dir, list_name)
            for line in read_form(corpus_dir, form, options.clip)
        ]
        for name, list_name in LISTS.items()
    }
    tell_oddities(sets)
    write_corpus(
        output,
        About("strokes", FIELDS),
        {name: with_steps(lines, "without a line") for name, lines in sets.items()},
    )


if __name__ == "__main__":
    cli(main)
