"""What is written is read back equal, or refused by a `UserError` before anything is changed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhotse import MonoCut, SupervisionSegment, SupervisionSet

from conformer_ctc.options import Options
from plateau import config
from plateau.alignment.files import (
    AlignedUtterance,
    read_frames,
    textgrid_path,
    write_alignments,
    write_frames,
    write_supervisions,
)
from plateau.config import UserError
from plateau.data.kaldi import Utterance, read_data_dir, write_data_dir
from plateau.decoding.files import (
    Interval,
    for_sclite,
    read_ctm,
    read_trn,
    write_ctm,
    write_trn,
)
from plateau.decoding.scoring import read_scores, score, write_scores
from plateau.decoding.stm import Segment, read_stm, write_stm
from plateau.io import read_json, write_json, write_text
from plateau.ngram import estimate, read_arpa
from plateau.text import normalise, read_text
from tests.alignment.test_files import parse as parse_textgrid
from tests.test_readers import public_functions

# Good ones, and such as no line can hold.
ODD = st.sampled_from(
    [
        *["", " ", "a b", " a", "a\n", "a\nb", "\r", "a\rb", "\0", "a\0", "\ufeff", "\ufeffa"],
        *["\ud800", "a\udc80", "\u2028", "\u0085", "\x1c", "(", ")", "(a)", "（", "{", "｛", ";;"],
        *["<unk>", "<eps>", "#0", "\\end\\", "\\1-grams:", '"', '""', "é", "é", "null", "---"],
        *["x" * 300, "日" * 100, "../x", "/", ".", "%2F", "-1", "nan", "▁", "\x1b[31m", "# a"],
    ]
)
NAMES = st.text("ab-é日1", min_size=1, max_size=3)
names = NAMES | NAMES | NAMES | ODD | st.text(max_size=3)
texts = st.lists(NAMES, max_size=3).map(" ".join) | names
TIMES = [0.0, 0.0005, 0.0015, 0.29, 0.9995, 1.0005, 12345.6785, -0.0]
BAD_TIMES = [-1.0, math.nan, math.inf, -1e-9, 1e308]
milliseconds = st.integers(0, 10_000).map(lambda n: n / 1000)
times = milliseconds | milliseconds | st.sampled_from(TIMES) | st.sampled_from(BAD_TIMES)


@st.composite
def intervals(draw, whole: bool = False) -> tuple[Interval, ...]:
    """Some with times in order; all of them with whole milliseconds, or not."""
    label = names
    if whole:
        borders = sorted(draw(st.sets(milliseconds, max_size=5)))
        pairs = list(pairwise(borders))
    else:
        pairs = draw(st.lists(st.tuples(times, times), max_size=3))
    confidence = st.none() | st.sampled_from([0.0, 0.5, 1.0, 1.0000001, -0.1, math.nan, 2.0])
    return tuple(Interval(start, end, draw(label), draw(confidence)) for start, end in pairs)


def rounded(said: Sequence[Interval]) -> tuple[Interval, ...]:
    """In milliseconds and thousandths, as a ctm has them."""
    return tuple(
        Interval(
            round(i.start, 3),
            round(i.end, 3),
            i.label,
            None if i.confidence is None else round(i.confidence, 3),
        )
        for i in said
    )


@dataclass(frozen=True)
class Writer:
    """A function that writes, and the one that gives it back.

    Args:
        covers: module and name of the function
        write: writes the value to a path
        read: the path's content, comparable with ``expected`` of the value
        values: to write, some of which cannot be
        good: a value that can be written
        expected: of a value
        folder: it writes a folder, not a file
        inputs: how many are tried
    """

    covers: str
    write: Callable[[Path, Any], Any]
    read: Callable[[Path], Any]
    values: st.SearchStrategy
    good: Any
    expected: Callable[[Any], Any] = lambda value: value
    folder: bool = False
    inputs: int = 100

    def __str__(self) -> str:
        return self.covers.removeprefix("plateau.")


def stm_rows(segments: list[Segment]) -> list[Segment]:
    """As they are read: in the order of sclite, in milliseconds, without labels."""
    rows = [
        replace(
            s,
            start=math.floor(s.start * 1000 + 1e-6) / 1000,
            end=math.floor(s.end * 1000 + 1e-6) / 1000,
        )
        for s in segments
    ]
    return sorted(rows, key=lambda s: (for_sclite(s.recording), s.channel, s.start))


def read_segments(path: Path) -> list[Segment]:
    return [replace(segment, label="") for segment in read_stm(path)]


def write_aligned(path: Path, values: dict[str, tuple[Interval, ...]]) -> None:
    write_alignments(path, [AlignedUtterance(id, i, i, 10.0) for id, i in values.items()])


def read_aligned(path: Path) -> list:
    """The two ctms, and of each TextGrid the rows with words, by its name."""
    grids = {}
    for grid in path.glob("*.TextGrid"):
        tiers, _ = parse_textgrid(read_text(grid))
        assert tiers["words"] == tiers["tokens"]
        grids[grid.name] = [row for row in tiers["words"] if row[2]]
    return [read_ctm(path / "words.ctm"), read_ctm(path / "tokens.ctm"), grids]


def aligned_rows(values: dict[str, tuple[Interval, ...]]) -> list:
    ctm = {id: rounded(i) for id, i in values.items() if i}
    grids = {
        textgrid_path(Path(), id).name: [row[:3] for row in rounded(i)] for id, i in values.items()
    }
    return [ctm, ctm, grids]


def write_cuts(path: Path, values: dict[str, tuple[Interval, ...]]) -> None:
    cuts = [
        MonoCut(id, 0.0, 10.0, 0, [SupervisionSegment(id, "r", 0.0, 10.0, text=id)])
        for id in values
    ]
    write_supervisions(path, cuts, [AlignedUtterance(id, i, i, 10.0) for id, i in values.items()])


def read_cuts(path: Path) -> dict[str, list]:
    found = {}
    for supervision in SupervisionSet.from_file(path) or ():
        words, tokens = supervision.alignment["word"], supervision.alignment["token"]
        assert words == tokens
        found[supervision.id] = [(item.start, item.duration, item.symbol) for item in words]
    return found


def write_lm(path: Path, sentences: list[list[str]]) -> None:
    try:
        model = estimate(sentences, 2)
    except UserError as error:  # its caller knows the file
        raise UserError(f"{path}: {error}") from None
    model.write_arpa(path)


def transcripts(path: Path) -> dict[str, tuple[str, str | None]]:
    return {u.id: (u.reference, u.hypothesis) for u in read_scores(path).utterances}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
by_id = st.dictionaries(names, texts, max_size=4)
timed = st.dictionaries(names, intervals(), max_size=3)
whole = st.dictionaries(names, intervals(whole=True), max_size=3)


@st.composite
def segments(draw) -> list[Segment]:
    """Some of which each has another utterance."""
    good = st.builds(
        Segment,
        *(NAMES, NAMES, milliseconds, milliseconds.map(lambda t: t + 10), texts),
        st.integers(0, 2),
    )
    odd = st.builds(Segment, names, names, times, times, texts, st.integers(-1, 2))
    said = draw(st.lists(good | good | odd, max_size=3))
    return [replace(s, utterance=draw(names) + f"-{n}") for n, s in enumerate(said)]


utterances = st.lists(
    st.builds(Utterance, id=names, speaker=names, text=texts, audio=names)
    | NAMES.map(lambda n: Utterance(n, n, "yes no", "/a.wav")),
    max_size=3,
)
SAID = (Interval(0.0, 0.25, "yes", 0.5),)
WRITERS = [
    Writer("plateau.io.write_text", write_text, read_text, texts, "é\r\n"),
    Writer("plateau.io.write_json", write_json, read_json, json_values, [{"a": 1}]),
    Writer(
        "plateau.decoding.files.write_trn",
        *(write_trn, read_trn, by_id, {"a": "yes no"}),
        lambda values: {for_sclite(i): for_sclite(t) for i, t in values.items()},
    ),
    Writer(
        "plateau.decoding.stm.write_stm",
        *(write_stm, read_segments, segments()),
        [Segment("a", "s", 0.0, 1.5, "yes no", utterance="s-a")],
        stm_rows,
    ),
    Writer(
        "plateau.decoding.files.write_ctm",
        *(write_ctm, read_ctm, timed, {"a": SAID}),
        lambda values: {id: rounded(i) for id, i in values.items() if i},
    ),
    Writer(
        "plateau.decoding.scoring.write_scores",
        lambda path, texts: write_scores(path, score(texts, texts)),
        *(transcripts, by_id, {"a": "yes no"}),
        lambda texts: {for_sclite(i): (for_sclite(normalise(t)),) * 2 for i, t in texts.items()},
        folder=True,
    ),
    Writer(
        "plateau.alignment.files.write_alignments",
        *(write_aligned, read_aligned, whole, {"a": SAID}, aligned_rows),
        folder=True,
    ),
    Writer(
        "plateau.alignment.files.write_supervisions",
        *(write_cuts, read_cuts, whole, {"a": SAID}),
        lambda values: {
            id: [(i.start, round(i.end - i.start, 6), i.label) for i in said]
            for id, said in values.items()
        },
    ),
    Writer(
        "plateau.alignment.files.write_frames",
        *(write_frames, read_frames),
        st.dictionaries(names, st.lists(st.integers(-1, 2000), max_size=3), max_size=3),
        {"a": [0, 3]},
    ),
    Writer(
        "plateau.ngram.NgramModel.write_arpa",
        *(write_lm, lambda path: read_arpa(path)[1]),
        st.lists(st.lists(names.map(normalise), max_size=3), max_size=3),
        [["yes", "no"]],
        lambda sentences: {word for sentence in sentences for word in sentence},
    ),
    Writer(
        "plateau.config.save",
        lambda path, values: config.save(Options(**values), path),
        lambda path: config.load(Options, path),
        st.fixed_dictionaries(
            {"corpus": st.dictionaries(NAMES, json_values, max_size=2)},
            optional={"dev_set": names, "test_sets": st.lists(names, max_size=2).map(tuple)},
        ),
        {},
        lambda values: Options(**values),
        inputs=30,
    ),
    Writer(
        "plateau.data.kaldi.write_data_dir",
        *(write_data_dir, read_data_dir, utterances, [Utterance("a", "a", "yes", "/a.wav")]),
        lambda values: sorted(
            (replace(u, text=normalise(u.text)) for u in values), key=lambda u: u.id
        ),
        folder=True,
    ),
]
# Others that write, and the tests that read what they wrote.
OTHERS = {
    "plateau.data.archives.write_array": "tests/data/test_archives.py",
    "plateau.data.features.save_statistics": "tests/data/test_features.py",
    "plateau.data.sequences.write_about": "tests/data/test_sequences.py",
    "plateau.data.sequences.write_corpus": "tests/data/test_sequences.py",
    "plateau.data.sequences.write_set": "tests/data/test_sequences.py",
    "plateau.data.sequences.write_statistics": "tests/local/test_check_sequences.py",
    "plateau.report.experiment.write_report": "tests/report/test_report.py",
    "plateau.report.sections.write_page": "tests/report/test_sections.py",
    "plateau.training.checkpoint.save": "tests/training/test_checkpoint.py",
    "plateau.training.state_file.write_state": "tests/training/test_state_file.py",
}


def content_of(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize("writer", WRITERS, ids=str)
def test_what_is_written_is_read_back_or_refused(writer, tmp_path_factory):
    seen = {True: 0, False: 0}

    @settings(max_examples=writer.inputs, suppress_health_check=list(HealthCheck))
    @given(writer.values)
    def check(value: Any) -> None:
        path = tmp_path_factory.mktemp("w") / ("folder" if writer.folder else "x.jsonl.gz")
        if writer.folder:
            path.mkdir()
            write_text(path / "old.TextGrid", "before")
        else:
            path.write_text("before")
        before = content_of(path.parent)
        try:
            writer.write(path, value)
        except UserError as error:
            assert content_of(path.parent) == before
            assert str(error).count("\n") < 3
            seen[False] += 1
        else:
            assert writer.read(path) == writer.expected(value)
            seen[True] += 1

    check()
    assert seen[True] > 10


@pytest.mark.parametrize("writer", [w for w in WRITERS if not w.folder], ids=str)
def test_a_folder_in_the_place_of_the_file_stays(writer, tmp_path):
    path = tmp_path / "x.jsonl.gz"
    writer.write(path, writer.good)
    assert writer.read(path) == writer.expected(writer.good)
    path.unlink()
    (path / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match=r"x\.jsonl\.gz: not written, for it is a folder"):
        writer.write(path, writer.good)
    assert (path / "inside").is_dir() and list(tmp_path.iterdir()) == [path]


def test_every_writer_of_the_library_is_tried():
    covered = {writer.covers for writer in WRITERS} | OTHERS.keys()
    assert [name for name in public_functions("write|save") if name not in covered] == []
    assert all(Path(test).is_file() for test in OTHERS.values())
