"""On a corpus made in IAM-OnDB's layout, since the real one needs a registration."""

from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import SequenceSet
from plateau.data.strokes import to_strokes

FORMS = {"a01-000u": "10001", "a01-000w": "10002", "b05-098": "10003", "c03-012z": "10004"}
LISTS = ("trainset.txt", "testset_v.txt", "testset_t.txt", "testset_f.txt")
TEXTS = ["A MOVE to stop Mr. Gaitskell from", "nominating any more Labour & life Peers"]
Stroke = list[tuple[float, float]]


def xml(strokes: list[Stroke]) -> str:
    """A line as it is published, y downwards."""
    lines = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>',
        "<WhiteboardCaptureSession>",
        "  <WhiteboardDescription>",
        '    <SensorLocation corner="top_left"/>',
        '    <DiagonallyOppositeCoords x="6512" y="1376"/>',
        '    <VerticallyOppositeCoords x="966" y="1376"/>',
        '    <HorizontallyOppositeCoords x="6512" y="787"/>',
        "  </WhiteboardDescription>",
        "  <StrokeSet>",
    ]
    for stroke in strokes:
        lines.append('    <Stroke colour="black" start_time="769.05" end_time="769.64">')
        lines += [
            f'      <Point x={quoteattr(str(x))} y={quoteattr(str(y))} time="769.05"/>'
            for x, y in stroke
        ]
        lines.append("    </Stroke>")
    return "\n".join([*lines, "  </StrokeSet>", "</WhiteboardCaptureSession>"]) + "\n"


def place(root: Path, kind: str, form: str) -> Path:
    page = form.rstrip("uwxz")
    folder = root / kind / page[:3] / page
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def strokes_of(form: str, line: int) -> list[Stroke]:
    start = 100 * list(FORMS).index(form) + 1000 * line
    return [[(start, 700), (start + 5, 710), (start + 5, 710)], [(start + 900, 705), (start, 705)]]


@pytest.fixture
def corpus(tmp_path) -> Path:
    return make_corpus(tmp_path / "iam")


def make_corpus(root: Path) -> Path:
    """Four forms of two lines, a form in each list."""
    for form, writer in FORMS.items():
        for line in (1, 2):
            path = place(root, "lineStrokes", form) / f"{form}-{line:02d}.xml"
            path.write_text(xml(strokes_of(form, line)))
        text = "\n".join(["OCR:", "", "A MOVE", "", "CSR:", "", *TEXTS, ""])
        (place(root, "ascii", form) / f"{form}.txt").write_text(text)
        letter = form[7:]
        (place(root, "original", form) / f"strokes{letter}.xml").write_text(
            f'<WhiteboardCaptureSession><General><Form id="{form}" writerID="{writer}"/></General>'
            "<StrokeSet/></WhiteboardCaptureSession>\n"
        )
    for name, form in zip(LISTS, FORMS, strict=True):
        (root / name).write_text(f"{form}\n")
    return root


def sets(folder: Path) -> dict[str, SequenceSet]:
    return {name: SequenceSet(folder / name) for name in ("train", "dev", "dev_t", "test")}


def test_lines_are_in_the_sets_of_the_lists_with_writers_and_texts(
    iam_ondb, corpus, tmp_path, capsys
):
    iam_ondb.main(tmp_path / "data", corpus)
    for (form, writer), (_, made) in zip(
        FORMS.items(), sets(tmp_path / "data").items(), strict=True
    ):
        assert made.ids == [f"{form}-01", f"{form}-02"]
        assert made.writers == [writer, writer]
        assert made.texts == TEXTS
        # y upwards; the repeated point is gone; the way to the second stroke is clipped
        expected = [[5, -10, 1], [500, 5, 0], [-500, 0, 1]]
        assert made.values(0).tolist() == made.values(1).tolist()
        assert made.values(0).tolist() == expected
    assert list(check_corpus(tmp_path / "data")) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("clip", "dx", "dy"),
    [
        (0, [5, 895, -900], [-10, 5, 0]),
        (896, [5, 895, -896], [-10, 5, 0]),
        (20, [5, 20, -20], [-10, 5, 0]),
        (0.5, [0.5, 0.5, -0.5], [-0.5, 0.5, 0]),
    ],
)
def test_offsets_are_clipped_at_the_option(iam_ondb, corpus, tmp_path, clip, dx, dy):
    (tmp_path / "config.yaml").write_text(f"corpus: {{clip: {clip}}}\n")
    iam_ondb.main(tmp_path / "data", corpus, tmp_path / "config.yaml")
    values = sets(tmp_path / "data")["train"].values(0)
    assert values.T.tolist() == [dx, dy, [1, 0, 1]]


def test_lists_may_be_in_task1_and_writers_unknown(iam_ondb, corpus, tmp_path):
    (corpus / "task1").mkdir()
    for name in LISTS:
        (corpus / name).rename(corpus / "task1" / name)
    for path in corpus.glob("original/*/*/*.xml"):
        path.unlink()
    iam_ondb.main(tmp_path / "data", corpus)
    assert {s.writers[0] for s in sets(tmp_path / "data").values()} == set(FORMS)


def test_a_writer_in_two_sets_is_told(iam_ondb, corpus, tmp_path, capsys):
    path = corpus / "original" / "b05" / "b05-098" / "strokes.xml"
    path.write_text(path.read_text().replace("10003", "10001"))
    iam_ondb.main(tmp_path / "data", corpus)
    said = "warning: 1 writers are in several sets: 10001 in dev_t, train\n"
    assert capsys.readouterr().out == said


LINE = "lineStrokes/a01/a01-000/a01-000u-01.xml"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (LINE, xml([[(1, 2), (3, 4)]])[:-30], "a01-000u-01.xml: not XML: .* line 1[45]"),
        (LINE, "", "a01-000u-01.xml: not XML: no element found: line 1"),
        (LINE, '<?xml version="1.0" encoding="utf-99"?><a/>', "a01-000u-01.xml: not XML: "),
        (LINE, "<a/>\xff", "a01-000u-01.xml: not XML: .* line 1, column 4"),
        (LINE, xml([]), "a01-000u-01.xml: has no stroke with a point"),
        (LINE, xml([[(1, 2)], [(3, 4), ("x", 5)]]), "point 2 of stroke 2 is {'x': 'x', 'y': '5'"),
        (LINE, xml([[(1, 2), (3, "nan")]]), "point 2 of stroke 1 is .*must have numbers x and y"),
        (LINE, xml([[(1, 2)]]).replace(" y=", " z=", 5), "point 1 of stroke 1 is {'x': '1', 'z'"),
        ("ascii/a01/a01-000/a01-000u.txt", "CSR:\n\n\xff\n", "a01-000u.txt: not UTF-8: line 3"),
        ("trainset.txt", "a01-000u\na1\n", "trainset.txt:2: 'a1' is no form, such as a01-000u"),
        ("trainset.txt", "d09-001\n", "no lineStrokes/d09/d09-001/d09-001-01.xml, which is listed"),
        ("original/a01/a01-000/strokesu.xml", "<a>", "strokesu.xml: not XML: "),
    ],
)
def test_what_is_wrong_is_named_with_its_file(iam_ondb, corpus, tmp_path, name, content, said):
    (corpus / name).write_text(content, encoding="latin-1")
    with pytest.raises(UserError) as error:
        iam_ondb.main(tmp_path / "data", corpus)
    assert len(str(error.value).splitlines()) == 1
    error.match(said)
    assert not (tmp_path / "data").exists()


def test_a_line_of_a_single_point_is_left_out_and_told(iam_ondb, corpus, tmp_path, capsys):
    (corpus / LINE).write_text(xml([[(1, 2)]]))
    iam_ondb.main(tmp_path / "data", corpus)
    train = sets(tmp_path / "data")["train"]
    assert (train.ids, train.texts) == (["a01-000u-02"], TEXTS[1:])
    assert capsys.readouterr().out == "left out 1 of 2, without a line: a01-000u-01\n"


@pytest.mark.parametrize(
    ("content", "texts"),
    [(None, ["", ""]), ("OCR:\n\nA\n", ["", ""]), ("CSR:\n\none line\n", ["one line", ""])],
)
def test_lines_without_text_are_told(iam_ondb, corpus, tmp_path, capsys, content, texts):
    path = corpus / "ascii" / "a01" / "a01-000" / "a01-000u.txt"
    path.unlink()
    if content is not None:
        path.write_text(content)
    iam_ondb.main(tmp_path / "data", corpus)
    assert sets(tmp_path / "data")["train"].texts == texts
    line = f"a01-000u-{texts.index('') + 1:02d}"
    said = f"warning: {texts.count('')} of 8 lines have no text, as {line}\n"
    assert capsys.readouterr().out == said


def test_mistakes_are_told(iam_ondb, corpus, tmp_path):
    with pytest.raises(UserError, match="give --corpus-dir"):
        iam_ondb.main(tmp_path / "data")
    with pytest.raises(UserError, match="has no folder lineStrokes\nexpected: "):
        iam_ondb.main(tmp_path / "data", tmp_path)
    (corpus / "testset_f.txt").unlink()
    with pytest.raises(UserError, match=r"testset_f\.txt: no such file"):
        iam_ondb.main(tmp_path / "data", corpus)


COORDINATES = st.integers(-9999, 9999)
STROKES = st.lists(
    st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=5), min_size=1, max_size=4
)


@given(STROKES)
def test_what_is_written_is_parsed(iam_ondb, tmp_path_factory, strokes):
    path = tmp_path_factory.getbasetemp() / "line.xml"
    path.write_text(xml(strokes))
    parsed = iam_ondb.read_strokes(path)
    assert [s.tolist() for s in parsed] == [[[x, -y] for x, y in stroke] for stroke in strokes]


@given(STROKES, st.integers(0, 2000), st.integers(0, 255))
def test_any_damage_is_other_strokes_or_an_error_of_a_line(
    iam_ondb, tmp_path_factory, strokes, position, byte
):
    content = bytearray(xml(strokes).encode())
    content[position % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "line.xml"
    path.write_bytes(bytes(content))
    try:
        parsed = iam_ondb.read_strokes(path)
    except UserError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
        return
    assert all(np.isfinite(stroke).all() for stroke in parsed)


def test_lines_can_be_drawn_from_what_is_stored(iam_ondb, corpus, tmp_path):
    (tmp_path / "config.yaml").write_text("corpus: {clip: 0}\n")
    iam_ondb.main(tmp_path / "data", corpus, tmp_path / "config.yaml")
    strokes = to_strokes(sets(tmp_path / "data")["dev"].values(1))
    start = np.array([2100, 700])
    drawn = [[tuple(start + point * [1, -1]) for point in stroke] for stroke in strokes]
    original = strokes_of("a01-000w", 2)
    assert drawn == [original[0][:2], original[1]]
