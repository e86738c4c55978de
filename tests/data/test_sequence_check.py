import numpy as np
import pytest

from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import About, Sequence, write_corpus, write_set
from plateau.errors import UserError

STROKES = About("strokes", ("dx", "dy", "pen"))
IMAGES = About("images", shape=(2, 2))
FRAMES = About("frames", sampling_rate=8000)
GOOD = {
    "strokes": [[1, 0.5, 0], [0, 2, 1], [3, -1, 1]],
    "images": [[0, 1, 0.5, 0]],
    "frames": [[0.5, -0.5, 0], [0, 0, 0]],
}


def corpus(folder, about, *sequences):
    """A training set of a good sequence and others, given by their values."""
    values = [GOOD[about.kind], *sequences]
    made = [
        Sequence(f"s{n}", np.array(v, np.float32).reshape(len(v), -1 if v else len(values[0][0])))
        for n, v in enumerate(values)
    ]
    write_corpus(folder, about, {"train": made})
    return folder


@pytest.mark.parametrize("about", [STROKES, IMAGES, FRAMES])
def test_a_good_corpus_has_no_fault(tmp_path, about):
    assert list(check_corpus(corpus(tmp_path, about))) == []


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("about", "values", "said"),
    [
        (STROKES, [], "a single point: it has no step"),
        (STROKES, [[1, 1, 0], [1, NAN, 1]], "not finite: value 2 of step 2 is nan"),
        (STROKES, [[1, 1, 0], [1, 2, INF]], "not finite: value 3 of step 2 is inf"),
        (STROKES, [[1, 1, 0], [1, 2, 0]], "no pen lift at the end: it is never lifted"),
        (STROKES, [[1, 1, 1], [1, 2, 0]], "no pen lift at the end: it is lifted before"),
        (STROKES, [[1, 1, 0.5], [1, 2, 1]], "a pen that is neither 0 nor 1: 0.5"),
        (
            STROKES,
            [[1, 1, 0], [0, 0, 0], [0, 0, 1]],
            "repeated points: 2 of 3 steps have no length, the first is 2",
        ),
        (IMAGES, [[0, 1, 2, 0]], "not in [0, 1]: from 0 to 2"),
        (IMAGES, [[0, 1, -1, 0]], "not in [0, 1]: from -1 to 1"),
        (IMAGES, [[0, 1, 0, NAN]], "not finite: value 4 of step 1 is nan"),
        (IMAGES, [[0, 1, 0, 0], [0, 0, 1, 0]], "an image of several steps: it has 2"),
        (IMAGES, [[0.5, 0.5, 0.5, 0.5]], "zero variance: all values are 0.5"),
        (FRAMES, [], "empty: it has no step"),
        (FRAMES, [[0, 0, 0], [0, 0, 0]], "zero variance: all values are 0"),
        (FRAMES, [[0, 1, -INF]], "not finite: value 3 of step 1 is -inf"),
    ],
)
def test_a_fault_is_named_with_its_file_line_and_sequence(tmp_path, about, values, said):
    found = list(check_corpus(corpus(tmp_path, about, values)))
    assert [str(f) for f in found] == [f"{tmp_path}/train/sequences.jsonl:2: s1: {said}"]


def test_what_never_changes_cannot_be_normalised(tmp_path):
    level = [[1, 0, 0], [2, 0, 1]]
    write_corpus(tmp_path, STROKES, {"train": [Sequence("s", np.array(level, np.float32))]})
    found = [str(fault) for fault in check_corpus(tmp_path)]
    assert found == [f"{tmp_path}/train/sequences.jsonl: zero variance: dy is always 0"]
    # in a set that nothing is normalised by, it may be so
    corpus(tmp_path, STROKES)
    write_set(tmp_path / "test", [Sequence("s", np.array(level, np.float32))])
    assert list(check_corpus(tmp_path)) == []


def test_sizes_that_about_does_not_say(tmp_path):
    corpus(tmp_path, IMAGES)
    write_set(tmp_path / "test", [Sequence("s", np.zeros((1, 9), np.float32))])
    found = [str(fault) for fault in check_corpus(tmp_path)]
    assert found == [f"{tmp_path}/test: of another size: 9 values of a step, not 2 × 2"]


def test_values_and_ids_that_were_changed(tmp_path):
    corpus(tmp_path, FRAMES, [[0.25, 0.5, 0.75]], [[1, 0, 1]])
    path = tmp_path / "train" / "values.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    lines = path.with_name("sequences.jsonl")
    lines.write_text(lines.read_text().replace('"s1"', '"s0"'))
    found = list(check_corpus(tmp_path))
    assert [fault.kind for fault in found] == ["an id that is there twice", "changed values"]
    assert "sequences.jsonl:2: s0" in str(found[0]) and "sequences.jsonl:3: s2" in str(found[1])


def test_a_corpus_without_training_set_or_that_is_none(tmp_path):
    corpus(tmp_path, FRAMES)
    (tmp_path / "train").rename(tmp_path / "test")
    assert [fault.kind for fault in check_corpus(tmp_path)] == ["no set train"]
    with pytest.raises(UserError, match=r"about\.json: no such file"):
        list(check_corpus(tmp_path / "test"))
