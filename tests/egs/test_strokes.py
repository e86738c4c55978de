import importlib
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from HersheyFonts import HersheyFonts

from plateau.config import UserError
from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import SequenceSet, read_about

SETS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def writers(strokes):
    """The module beside prepare.py."""
    return importlib.import_module("writers")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(
        "corpus: {lines: 50, dev_lines: 8, test_lines: 8, lines_per_writer: 4, seed: 3}\n"
    )
    return path


@pytest.fixture(scope="module")
def corpus(strokes, config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    strokes.main(folder, config=config, nj=2)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_bytes_for_any_number_of_processes(strokes, config, corpus, tmp_path):
    strokes.main(tmp_path, config=config, nj=1)
    assert contents(tmp_path) == contents(corpus)
    strokes.main(tmp_path, config=config, seed=4)  # over the first
    made = contents(tmp_path)
    assert made.keys() == contents(corpus).keys()
    assert all(
        made[f"{name}/values.npy"] != contents(corpus)[f"{name}/values.npy"] for name in SETS
    )


def test_more_lines_to_train_on_leave_the_other_sets_as_they_are(strokes, config, corpus, tmp_path):
    strokes.main(tmp_path, config=config, lines=60)
    made, before = contents(tmp_path), contents(corpus)
    assert all(made[name] == before[name] for name in made if not name.startswith("train"))
    assert SequenceSet(tmp_path / "train").ids[:50] == SequenceSet(corpus / "train").ids


def test_sizes_and_what_is_in_one_set_only(corpus):
    sets = {name: SequenceSet(corpus / name) for name in SETS}
    assert [len(sets[name]) for name in SETS] == [50, 8, 8]
    assert read_about(corpus).fields == ("dx", "dy", "pen")
    assert [len(set(sets[name].writers)) for name in SETS] == [13, 2, 2]
    for column in ("ids", "writers"):
        values = [value for s in sets.values() for value in set(getattr(s, column))]
        assert len(values) == len(set(values))
    texts = [text for s in sets.values() for text in s.texts]
    assert len(texts) == len(set(texts)) == 66
    assert all(15 <= len(text) <= 22 for text in texts)
    lengths = [length for s in sets.values() for length in s.lengths]
    assert 150 < np.mean(lengths) < 300 and min(lengths) > 90 and max(lengths) < 450


def test_nothing_is_wrong_with_it(corpus):
    assert list(check_corpus(corpus)) == []


def exact(writers, **changes):
    """A writer who writes as the font is, with points 2 apart."""
    exactly = {"font": "rowmans", "slant": 0, "size": 1, "width": 1, "speed": 2, "jitter": 0}
    return writers.Writer("w", **{**exactly, "wander": 0, "lifts": 1.0, **changes})


def distance(point: np.ndarray, line: np.ndarray) -> float:
    """From a point to the nearest place on a polyline (T, 2)."""
    start, way = line[:-1], np.diff(line, axis=0)
    length = np.maximum((way**2).sum(1), 1e-12)
    share = (((point - start) * way).sum(1) / length).clip(0, 1)[:, None]
    return float(np.hypot(*(start + share * way - point).T).min())


@pytest.mark.parametrize("font", ["rowmans", "scripts"])
def test_a_writer_without_habits_writes_the_font(writers, font):
    text = "The quick brown fox jumps over a lazy dog"
    written = writers.write_line(text, exact(writers, font=font), random.Random(0))
    drawn = list(HersheyFonts(load_default_font=font).strokes_for_text(text))
    assert len(written) == len(drawn)  # the pen is lifted wherever the font lifts it
    for points, stroke in zip(written, drawn, strict=True):
        line = np.array([(x, -y) for x, y in stroke], float)
        assert max(distance(point, line) for point in points) < 1e-9
        assert np.allclose(points[[0, -1]], line[[0, -1]])
        # no two points are further apart than along the stroke, and that is about 2
        length = np.hypot(*np.diff(line, axis=0).T).sum()
        assert np.hypot(*np.diff(points, axis=0).T).max() <= length / (len(points) - 1) + 1e-9
        assert 1.5 < length / (len(points) - 1) < 2.5 or len(points) <= 3


def test_habits_change_what_they_are_named_after(writers):
    def written(**habits) -> list[np.ndarray]:
        return writers.write_line("minimum", exact(writers, **habits), random.Random(0))

    def points(**habits) -> np.ndarray:
        return np.concatenate(written(**habits))

    def is_as_large(one: np.ndarray, other: np.ndarray) -> bool:
        # a curve's outermost place may lie between two points
        return np.allclose(np.ptp(one, axis=0), np.ptp(other, axis=0), atol=0.5)

    plain = points()
    assert is_as_large(points(size=2), 2 * plain)
    assert is_as_large(points(width=2), [2, 1] * plain)
    leaning = points(slant=0.5)
    assert is_as_large(leaning - 0.5 * leaning[:, 1:] * [1, 0], plain)
    assert np.ptp(leaning[:, 0]) > np.ptp(plain[:, 0]) + 3
    assert len(points(speed=4)) < 0.65 * len(plain)
    assert len(written(lifts=0)) < len(written(lifts=0.5)) < len(written())
    moved = points(jitter=0.3, speed=0.1) - points(speed=0.1)
    assert len(moved) > 1000 and abs(moved.mean()) < 0.03
    assert moved.std() == pytest.approx(0.3, rel=0.08)
    assert 0.5 < np.ptp(points(wander=2)[:, 1]) - np.ptp(plain[:, 1]) < 4


def test_writers_differ_and_are_always_the_same(writers):
    people = [writers.make_writer(f"train{n:04d}", 1) for n in range(40)]
    assert people[3] == writers.make_writer("train0003", 1) != writers.make_writer("train0003", 2)
    habits = defaultdict(set)
    for person in people:
        for name in ("slant", "size", "width", "speed", "jitter", "wander", "lifts"):
            habits[name].add(getattr(person, name))
    assert all(len(values) == 40 for values in habits.values())
    assert {person.font for person in people} == {"rowmans", "scripts"}


def test_mistakes_are_told(strokes, config, tmp_path):
    with pytest.raises(UserError, match="leave out --corpus-dir"):
        strokes.main(tmp_path / "data", tmp_path)
    with pytest.raises(UserError, match="lines is 0"):
        strokes.main(tmp_path / "data", config=config, lines=0)
    assert not (tmp_path / "data").exists()
