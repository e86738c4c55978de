import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import SequenceSet
from plateau.data.strokes import to_strokes

REAL = Path(__file__).parents[3] / "shared" / "data" / "omniglot"
SMALL = "strokes_background_small1"


def drawing(*strokes: list[tuple[float, float]]) -> str:
    lines = ["START"]
    for stroke in strokes:
        lines += [f"{x},{y},{10 * time}" for time, (x, y) in enumerate(stroke)] + ["BREAK"]
    return "\n".join(lines) + "\n"


def line_of(drawer: int) -> str:
    return drawing([(0, 0), (drawer, 1)], [(2, -5), (3, -5)])


@pytest.fixture
def corpus(tmp_path) -> Path:
    return make_corpus(tmp_path / "omniglot")


def make_corpus(folder: Path) -> Path:
    """Two alphabets with a character each, by 20 drawers, as the zip that is published."""
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{SMALL}.zip", "w") as archive:
        for alphabet in ("Greek", "Latin"):
            for drawer in range(1, 21):
                name = f"{SMALL}/{alphabet}/character01/0001_{drawer:02d}.txt"
                archive.writestr(name, line_of(drawer))
        archive.writestr(f"{SMALL}/Greek/.DS_Store", b"\0\xff")
        archive.writestr(f"__MACOSX/{SMALL}/Greek/character01/._0001_01.txt", b"\0\xff")
    return folder


@pytest.fixture
def exact(tmp_path) -> Path:
    """Options with which points stay where they are."""
    path = tmp_path / "exact.yaml"
    path.write_text("corpus: {dequantise: false}\n")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_drawers_are_in_one_set_each(omniglot, corpus, exact, tmp_path):
    omniglot.main(tmp_path / "data", corpus, exact)
    expected = {"train": range(1, 17), "dev": (17, 18), "test": (19, 20)}
    for name, drawers in expected.items():
        made = SequenceSet(tmp_path / "data" / name)
        assert set(made.ids) == {
            f"{a}-character01-{d:02d}" for a in ("Greek", "Latin") for d in drawers
        }
        for sequence in made:
            drawer = int(sequence.id[-2:])
            assert sequence.writer == f"{sequence.id.split('-')[0]}-{drawer:02d}"
            assert sequence.values.tolist() == [[drawer, 1, 1], [2 - drawer, -6, 0], [1, 0, 1]]
    assert list(check_corpus(tmp_path / "data")) == []


def test_points_are_moved_within_their_pixels(omniglot):
    """Enough points that each part of a pixel is hit as often as any other."""
    grid = 0.785
    steps = np.random.default_rng(0).integers(-3, 4, (20000, 2)) * grid
    offsets = np.column_stack([steps, np.zeros(len(steps))])
    moved = omniglot.dequantised(offsets, "a")
    assert np.array_equal(moved, omniglot.dequantised(offsets, "a"))
    assert not np.allclose(moved, omniglot.dequantised(offsets, "b"))
    assert np.array_equal(moved[:, 2], offsets[:, 2])
    # all are moved together with the first point, so within a pixel of it
    points = np.cumsum(moved[:, :2] - steps, axis=0)
    place = (points - points.min(0)) / grid
    assert 0.999 < place.max() <= 1
    counts = np.histogram(place, bins=10, range=(0, 1))[0]
    assert np.abs(counts / 4000 - 1).max() < 0.06  # four standard deviations
    assert len(np.unique(moved[:, 0])) == len(moved)
    # no pixel is as large as a single long step
    assert np.allclose(omniglot.dequantised(np.array([[50, 0, 1.0]]), "a"), [[50, 0, 1]], atol=1)


def test_zip_and_folder_and_the_folder_inside_give_the_same(omniglot, corpus, tmp_path):
    omniglot.main(tmp_path / "of_zip", corpus)
    with zipfile.ZipFile(corpus / f"{SMALL}.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    omniglot.main(tmp_path / "of_folder", tmp_path / "unpacked")
    omniglot.main(tmp_path / "of_inner", tmp_path / "unpacked" / SMALL)
    shutil.copytree(tmp_path / "unpacked" / SMALL, corpus / SMALL)
    omniglot.main(tmp_path / "of_both", corpus)
    one = contents(tmp_path / "of_zip")
    assert all(contents(tmp_path / f"of_{n}") == one for n in ("folder", "inner", "both"))


def test_a_drawing_of_one_point_is_left_out_and_told(omniglot, corpus, tmp_path, capsys):
    with zipfile.ZipFile(corpus / f"{SMALL}.zip", "a") as archive:
        archive.writestr(f"{SMALL}/Dots/character01/0002_03.txt", drawing([(1, 1), (1, 1)]))
    omniglot.main(tmp_path / "data", corpus)
    said = "left out 1 of 33, without a line: Dots-character01-03\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"1: '' is not START"),
        ("1,2,3\nBREAK\n", r"1: '1,2,3' is not START"),
        ("START\n", r"1: ends without BREAK"),
        ("START\n1,2,3\n", r"2: ends without BREAK"),
        ("START\nBREAK\n", r"2: 'BREAK' is not: x,y,time"),
        ("START\n1,2\nBREAK\n", r"2: '1,2' is not: x,y,time"),
        ("START\n1,2,3\n1;2;3\nBREAK\n", r"3: '1;2;3' is not: x,y,time"),
        ("START\n1,nan,3\nBREAK\n", r"2: '1,nan,3' has a coordinate that is not finite"),
        ("START\n1,2,3\nBREAK\nBREAK\n", r"4: 'BREAK' is not: x,y,time"),
    ],
)
def test_a_line_that_is_none_is_named(omniglot, text, said):
    with pytest.raises(UserError, match=f"^drawing:{said}"):
        omniglot.parse(text, Path("drawing"))


COORDINATES = st.floats(-200, 200, width=32)
STROKES = st.lists(
    st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=5), min_size=1, max_size=4
)


@given(STROKES)
def test_what_is_written_is_parsed(omniglot, strokes):
    parsed = omniglot.parse(drawing(*strokes), Path("drawing"))
    assert [stroke.tolist() for stroke in parsed] == [[list(p) for p in s] for s in strokes]


@given(st.lists(st.sampled_from(["START", "BREAK", "1,2,3", "4,5,6", "x", "", "1,2", "inf,1,1"])))
def test_lines_in_any_order_are_strokes_or_an_error_that_names_one(omniglot, lines):
    try:
        strokes = omniglot.parse("\n".join(lines) + "\n", Path("drawing"))
    except UserError as error:
        number = int(str(error).split(":")[1])
        assert 1 <= number <= max(1, len(lines))
        return
    points = [line for line in lines if line[0] in "14"]
    assert sum(map(len, strokes)) == len(points) and len(strokes) == lines.count("BREAK")


def test_damaged_files_are_named(omniglot, corpus, tmp_path):
    path = corpus / f"{SMALL}.zip"
    whole = path.read_bytes()
    place = whole.index(b"2,-5,0")  # stored, not deflated
    path.write_bytes(whole[:place] + b"3" + whole[place + 1 :])
    with pytest.raises(
        UserError, match=rf"{SMALL}\.zip/.*/0001_01\.txt: cannot be unpacked: Bad CRC"
    ):
        omniglot.main(tmp_path / "data", corpus)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{SMALL}\.zip: cannot be unpacked: .*not a zip"):
        omniglot.main(tmp_path / "data", corpus)
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{SMALL}/Greek/character02/0002_01.txt", b"START\n\xe9\nBREAK\n")
    with pytest.raises(
        UserError, match=rf"{SMALL}\.zip/{SMALL}/Greek/character02/0002_01\.txt: not UTF-8: line 2"
    ):
        omniglot.main(tmp_path / "data", corpus)
    assert not (tmp_path / "data").exists()


def test_a_changed_bit_of_a_zip_is_an_error_that_names_it_or_changes_no_drawing(omniglot, tmp_path):
    path = tmp_path / f"{SMALL}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{SMALL}/Greek/character01/0001_01.txt", line_of(1))
    whole = path.read_bytes()
    told = 0
    for place in range(len(whole)):
        for bit in (0, 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                contents = [content for *_, content in omniglot.drawings(path)]
            except UserError as error:
                assert str(path) in str(error)
                told += 1
            else:
                assert contents in ([line_of(1).encode()], [])  # or its name is another one
    assert told > len(whole) / 2


def test_mistakes_are_told(omniglot, corpus, tmp_path):
    with pytest.raises(UserError, match="give --corpus-dir"):
        omniglot.main(tmp_path / "data")
    with pytest.raises(UserError, match="no drawings of all three sets\nexpected: strokes_"):
        omniglot.main(tmp_path / "data", tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("corpus: {dequantise: 3}\n")
    with pytest.raises(UserError, match="dequantise is 3; it must be true or false"):
        omniglot.main(tmp_path / "data", corpus, config)


@pytest.mark.skipif(not REAL.is_dir(), reason="the published zip is not there")
def test_the_published_zip(omniglot, exact, tmp_path, capsys):
    omniglot.main(tmp_path, REAL, exact)
    sets = {name: SequenceSet(tmp_path / name) for name in ("train", "dev", "test")}
    assert {name: len(s) for name, s in sets.items()} == {"train": 2175, "dev": 272, "test": 272}
    assert capsys.readouterr().out.endswith("without a line: Korean-character16-02\n")
    # a drawing whose first and last points are read off its file
    train = sets["train"]
    strokes = to_strokes(train.values(train.ids.index("Balinese-character01-01")))
    with zipfile.ZipFile(REAL / f"{SMALL}.zip") as archive:
        lines = archive.read(f"{SMALL}/Balinese/character01/0108_01.txt").decode().split()
    points = [np.array(line.split(",")[:2], float) for line in lines if line[0].isdigit()]
    assert len(strokes) == lines.count("BREAK")
    ends = strokes[-1][-1] - strokes[0][0]
    assert np.allclose(ends, points[-1] - points[0], atol=1e-3)
    assert list(check_corpus(tmp_path)) == []
