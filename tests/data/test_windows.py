import dataclasses
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet

from plateau.data.lines import Interval
from plateau.data.windows import WindowIndex, WindowOptions, Windows, make_index
from plateau.errors import UserError
from tests.spoken import LEAD, PAUSE, TONE, make_set

TEXTS = ["la", "la mi so", "mi so la ti la mi so", "ti ti la mi"]
SMALL = WindowOptions(frames=10, words=3, frame_stride=4)  # just three words


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> CutSet:
    return make_set(tmp_path_factory.mktemp("windows"), TEXTS)


def rows(index: WindowIndex) -> list[tuple[int, ...]]:
    columns = (getattr(index, field.name).tolist() for field in dataclasses.fields(index))
    return list(zip(*columns, strict=True))


def even(number: int, step: float = 0.15, start: float = 0.2) -> list[Interval]:
    return [Interval(start + step * n, 0.1, f"w{n}") for n in range(number)]


def test_where_windows_begin():
    """Frames of 10 ms, by hand: word n of `even` begins in frame 20 + 15 n."""
    options = WindowOptions(frames=10, words=3, word_stride=2, frame_stride=4)
    found = rows(make_index([(even(2), 0.7), (even(6), 1.3)], options))
    # utterance, first word, first frame, frames, words, words outside
    assert found == [
        (0, 0, 20, 40, 2, 0),
        (1, 0, 20, 40, 3, 0),
        (1, 2, 50, 40, 3, 0),
        (1, 4, 80, 40, 2, 0),
    ]
    # The audio ends after 0.85 s, and the last word after 0.9 s.
    found = rows(make_index([(even(5), 0.85)], options))
    assert found == [(0, 0, 20, 40, 3, 0), (0, 2, 50, 35, 3, 1)]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(1, 9),
    st.integers(1, 12),
)
def test_all_words_are_in_windows_and_one_more_would_have_no_new_word(sizes, words, stride):
    options = WindowOptions(words=words, word_stride=stride)
    index = make_index(((even(size), 10.0) for size in sizes), options)
    for number, size in enumerate(sizes):
        own = index.utterance == number
        spans = list(zip(index.first_word[own], index.num_words[own], strict=True))
        assert [first for first, _ in spans] == [stride * n for n in range(len(spans))]
        assert all(1 <= count <= words and first + count <= size for first, count in spans)
        ends = [first + count for first, count in spans]
        assert size not in ends[:-1]
        if stride <= words:  # else some words are meant to be left out
            assert ends[-1] == size
            covered = {word for first, count in spans for word in range(first, first + count)}
            assert covered == set(range(size))
        else:
            assert ends[-1] + stride > size


times = st.floats(-5, 20, allow_nan=False)


@given(st.lists(st.tuples(times, st.floats(0, 5)), min_size=1, max_size=12), st.floats(0.03, 12))
def test_outside_is_what_enumeration_finds(words, duration):
    """Whatever the times: words counted one by one, and audio that there is."""
    options = WindowOptions(frames=8, words=3, frame_stride=2)
    timed = [Interval(start, length, "w") for start, length in words]
    index = make_index([(timed, duration)], options)
    total = round(duration / 0.01)
    for first, frame, num, count, outside in (row[1:] for row in rows(index)):
        assert 0 <= frame < total and 1 <= num <= 16 and frame + num <= total
        inside = [
            w
            for w in timed[first : first + count]
            if w.start >= 0.01 * (frame - 0.5)
            and w.start + w.duration <= 0.01 * (frame + num + 0.5)
        ]
        assert outside == count - len(inside)


def generated(utterances: int) -> Iterator[tuple[list[Interval], float]]:
    """Utterances of 107 words, which have 100 windows of 8."""
    for _ in range(utterances):
        yield even(107, step=0.3), 33.0


def test_a_million_windows_take_seconds_and_twenty_bytes_each():
    before = time.process_time()
    index = make_index(generated(10_000), WindowOptions())
    assert len(index) == 1_000_000
    assert time.process_time() - before < 60
    assert sum(getattr(index, f.name).nbytes for f in dataclasses.fields(index)) == 20 * len(index)
    assert index.utterance[-1] == 9_999 and index.first_word[-1] == 99 and not index.outside.any()


def test_what_is_kept_while_the_index_is_made_is_the_index():
    def peak(utterances: int) -> int:
        tracemalloc.start()
        make_index(generated(utterances), WindowOptions())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    more = (peak(400) - peak(100)) / (300 * 100)
    assert more < 30  # bytes a window: 20, and room to grow


def test_a_window_has_the_features_and_words_that_the_index_says(cuts):
    windows = Windows(cuts, SMALL)
    assert len(windows) == 1 + 1 + 5 + 2
    of_id = {cut.id: cut for cut in cuts}
    for number in range(len(windows)):
        window, index = windows[number], windows.index
        utterance = list(of_id)[index.utterance[number]]
        first = int(index.first_word[number])
        assert window.cut.id == f"{utterance}:{first + 1}"
        text = TEXTS[int(utterance[2:])].split()[first : first + 3]
        assert [word.label for word in window.words] == text
        assert window.cut.supervisions[0].text == " ".join(text)
        starts = [word.start for word in window.words]
        assert starts == pytest.approx([(TONE + PAUSE) * n for n in range(len(text))])
        frame = round((LEAD + first * (TONE + PAUSE)) * 100)
        whole = of_id[utterance].load_features()
        expected = whole[frame : frame + SMALL.feature_frames]
        np.testing.assert_array_equal(window.cut.load_features(), expected)
        assert index.num_frames[number] == len(expected)


def test_the_audit_names_windows_whose_words_are_not_heard(cuts):
    assert Windows(cuts, SMALL, name="train").audit() == []
    short = dataclasses.replace(SMALL, frames=9)  # 0.36 s: the third word ends at 0.4 s
    notes = Windows(cuts, short, name="train").audit()
    assert notes == [
        "train: 8 of 9 windows have words that are not within their audio: u-01:1 (1), u-02:1 (1), "
        "u-02:2 (1), u-02:3 (1), u-02:4 (1), …; raise window.frames or window.frame_stride, or "
        "lower window.words"
    ]


def test_times_of_another_alignment(cuts):
    """Utterances that it lacks, or of which it has other words, have no windows, and are named."""
    times = {
        "u-01": [(0.25, 0.3, "la"), (0.4, 0.5, "mi"), (0.5, 0.6, "so")],
        "u-03": [(0.25, 0.3, "ti"), (0.4, 0.5, "la")],
    }
    windows = Windows(cuts, SMALL, times, "dev")
    assert len(windows) == 1
    assert windows[0].cut.id == "u-01:1" and windows.index.first_frame[0] == 25
    spans = [(word.start, word.start + word.duration) for word in windows[0].words]
    assert np.array(spans) == pytest.approx(np.array([(0, 0.05), (0.15, 0.25), (0.25, 0.35)]))
    assert windows.audit() == ["dev: no windows of u-00 has no times of words (3 such)"]
    assert windows.left_out[2] == "u-03 has times of 2 words, which are not those of its text"


def test_a_corpus_without_times_is_told_what_to_do(tmp_path):
    untimed = make_set(tmp_path, ["la mi"], timed=False)
    with pytest.raises(UserError) as error:
        Windows(untimed, SMALL, name="train")
    assert str(error.value).splitlines() == [
        "train: no windows: u-00 has no times of words",
        "they need times of words: a file ctm in the data directory, or window.alignment=EXP of an "
        "experiment that aligned the set (stage 7)",
    ]
    found = Windows(untimed, SMALL, {"u-00": [(0.2, 0.3, "la"), (0.35, 0.45, "mi")]})
    assert [word.label for word in found[0].words] == ["la", "mi"]


def test_windows_of_copies_at_other_speeds(tmp_path):
    """Their words are where they are in the copy."""
    from plateau.data.features import make_cuts
    from plateau.data.manifests import to_manifests
    from tests.spoken import FEATURES, write_set

    options = dataclasses.replace(FEATURES, perturb_speed=(0.8,))
    manifests = to_manifests(write_set(tmp_path / "set", ["la mi so"]))
    windows = Windows(make_cuts(*manifests, options, perturb=True), SMALL)
    assert [windows[n].cut.id for n in range(2)] == ["u-00:1", "u-00_sp0.8:1"]
    assert windows.index.first_frame.tolist() == [20, 25]
    step = (TONE + PAUSE) / 0.8
    starts = [word.start for word in windows[1].words]
    assert starts == pytest.approx([0, step, 2 * step], abs=1e-3)
