import math
from statistics import mean, median

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.alignment.files import AlignedUtterance, Alignment, Interval, aligned_utterance
from plateau.alignment.measures import (
    Measured,
    blank_fraction,
    boundary_errors,
    emission_delay,
    label_run,
    matching,
    measure,
    occupancy_error,
    path_runs,
    peakiness,
    runs_of_words,
    sharpness_and_entropy,
    true_times,
)
from plateau.config import UserError
from plateau.data import kaldi
from plateau.data.corpus import Corpus
from plateau.data.manifests import to_manifests
from plateau.data.tokens import TokenOptions, make_lang

# By hand: starts are 20 ms late, 10 ms early; ends 100 ms early, 40 ms late.
TRUTH = (Interval(0.1, 0.5, "a"), Interval(0.5, 0.8, "b"))
ALIGNED = (Interval(0.12, 0.4, "a"), Interval(0.49, 0.84, "b"))


@st.composite
def alignments(draw):
    """Pairs of an alignment and the truth: the same labels, in order, all else at random."""
    labels = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=6))
    sides = []
    for _ in range(2):
        times = draw(
            st.lists(
                st.integers(0, 5000),
                min_size=2 * len(labels),
                max_size=2 * len(labels),
                unique=True,
            )
        )
        times = [t / 1000 for t in sorted(times)]
        sides.append(
            [Interval(*t, y) for *t, y in zip(times[::2], times[1::2], labels, strict=True)]
        )
    return tuple(sides)


sets = st.lists(alignments(), min_size=1, max_size=4)
quick = settings(deadline=None, derandomize=True, max_examples=50)


def test_boundary_errors_by_hand():
    values = boundary_errors([(ALIGNED[:1], TRUTH[:1]), (ALIGNED[1:], TRUTH[1:])])
    assert values == boundary_errors([(ALIGNED, TRUTH)])  # over words, wherever they are
    assert values == pytest.approx(
        {
            "word_boundary_error_ms": 42.5,
            "word_boundary_error_ms_median": 30,
            "word_boundary_within_10ms": 25,  # 0.5 s − 0.49 s is 10 ms, whatever floats say
            "word_boundary_within_25ms": 50,
            "word_boundary_within_50ms": 75,
            "word_boundary_within_100ms": 100,
            "word_start_error_ms": 15,
            "word_start_error_ms_median": 15,
            "word_start_within_10ms": 50,
            "word_start_within_25ms": 100,
            "word_start_within_50ms": 100,
            "word_start_within_100ms": 100,
            "word_end_error_ms": 70,
            "word_end_error_ms_median": 70,
            "word_end_within_10ms": 0,
            "word_end_within_25ms": 0,
            "word_end_within_50ms": 50,
            "word_end_within_100ms": 100,
            "word_start_delay_ms": 5,
            "word_end_delay_ms": -30,
        },
        abs=1e-9,
    )
    assert boundary_errors([]) == boundary_errors([((), ())]) == {}
    tokens = boundary_errors([(ALIGNED, TRUTH)], "token")
    assert tokens == {name.replace("word", "token"): value for name, value in values.items()}


@quick
@given(sets)
def test_boundary_errors_by_a_loop(pairs):
    starts, ends = [], []
    for aligned, truth in pairs:
        for i in range(len(truth)):
            starts.append(1000 * (aligned[i].start - truth[i].start))
            ends.append(1000 * (aligned[i].end - truth[i].end))
    expected = {"word_start_delay_ms": mean(starts), "word_end_delay_ms": mean(ends)}
    for name, delays in (("start", starts), ("end", ends), ("boundary", starts + ends)):
        errors = [round(abs(delay)) for delay in delays]  # all times are whole milliseconds
        expected[f"word_{name}_error_ms"] = mean(errors)
        expected[f"word_{name}_error_ms_median"] = median(errors)
        for bound in (10, 25, 50, 100):
            within = [error for error in errors if error <= bound]
            expected[f"word_{name}_within_{bound}ms"] = 100 * len(within) / len(errors)
    assert boundary_errors(pairs) == pytest.approx(expected, abs=1e-6)


@quick
@given(sets, st.integers(-3000, 3000))
def test_a_shift_moves_the_delays_by_as_much(pairs, shift_ms):
    shifted = [
        ([Interval(i.start + shift_ms / 1000, i.end + shift_ms / 1000, i.label) for i in a], t)
        for a, t in pairs
    ]
    before, after = boundary_errors(pairs), boundary_errors(shifted)
    for name in ("word_start_delay_ms", "word_end_delay_ms"):
        assert after[name] - before[name] == pytest.approx(shift_ms, abs=1e-5)
        # A delay is at most the error, which is its size without its sign.
        assert abs(after[name]) <= after[name.replace("delay", "error")] + 1e-9
    for name in ("start", "end", "boundary"):
        change = after[f"word_{name}_error_ms"] - before[f"word_{name}_error_ms"]
        assert abs(change) <= abs(shift_ms) + 1e-5


@quick
@given(sets)
def test_the_truth_is_without_error(pairs):
    truths = [truth for _, truth in pairs]
    for name, value in boundary_errors([(t, t) for t in truths]).items():
        assert value == (100 if "within" in name else 0)
    durations = [5.0] * len(truths)
    assert occupancy_error([(t, t) for t in truths], durations) == pytest.approx(0, abs=1e-9)
    assert peakiness([(t, t) for t in truths]) == pytest.approx(1)
    centres = [([(i.start + i.end) / 2 for i in t], t) for t in truths]
    assert emission_delay(centres) == 0


@pytest.mark.parametrize(
    ("wrong", "first"), [(TRUTH[:1], 2), ((), 1), ((*TRUTH, TRUTH[0]), 3), (TRUTH[::-1], 1)]
)
def test_other_words_are_an_error(wrong, first):
    said = " ".join(word.label for word in wrong)
    with pytest.raises(ValueError, match=f"^word {first} .*'{said}' is aligned.* 'a b' was said"):
        boundary_errors([(TRUTH, TRUTH), (wrong, TRUTH)])


def test_emission_delay_by_hand():
    # Centres are 0.3 and 0.65 s.
    assert emission_delay([((0.4,), TRUTH[:1]), ((0.63,), TRUTH[1:])]) == pytest.approx(40)
    with pytest.raises(ValueError, match="zip"):
        emission_delay([((0.4,), TRUTH)])


def test_path_runs():
    #       frame 0  1  2  3  4  5  6  7
    runs = path_runs([0, 1, 1, 0, 1, 2, 2, 2], 0.5, ["<blk>", "a", "b"])
    assert runs == [Interval(0.5, 1.5, "a"), Interval(2.0, 2.5, "a"), Interval(2.5, 4.0, "b")]
    assert path_runs([0, 0], 0.5, ["<blk>", "a"]) == path_runs([], 0.5, ["<blk>"]) == []


@quick
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=4))
def test_paths_are_counted_frame_by_frame(paths):
    shift = 0.04
    runs = [path_runs(path, shift, "_abc") for path in paths]
    durations = [shift * len(path) for path in paths]
    frames = [label for path in paths for label in path]
    assert blank_fraction(runs, durations) == pytest.approx(frames.count(0) / len(frames))
    lengths = []
    for path in paths:
        for before, label in zip([0, *path], path, strict=False):
            if label != 0 and label == before:
                lengths[-1] += 1
            elif label != 0:
                lengths.append(1)
    if lengths:
        assert label_run(runs) / shift == pytest.approx(mean(lengths))


@quick
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_occupancy_error_by_a_loop(frames):
    path, truth = zip(*frames, strict=True)
    shares = [[side.count(label) / len(frames) for label in range(4)] for side in (path, truth)]
    expected = 100 * sum(max(q - p, 0) for q, p in zip(*shares, strict=True))
    pair = (path_runs(path, 1.0, "_abc"), path_runs(truth, 1.0, "_abc"))
    error = occupancy_error([pair], [len(frames)])
    assert error == pytest.approx(expected)
    assert 0 <= error <= 100
    # Blank is one of the labels, so its share alone differs by no more.
    blank = [blank_fraction([side], [len(frames)]) for side in pair]
    assert error >= 100 * abs(blank[0] - blank[1]) - 1e-9


def test_occupancy_error_over_utterances():
    # Of 4 s: a has 2 s in place of 1, b 0 in place of 2, nothing 2 in place of 1.
    pairs = [((Interval(0, 2, "a"),), (Interval(0, 1, "a"), Interval(1, 2, "b")))]
    pairs.append(((), (Interval(0, 1, "b"),)))
    assert occupancy_error(pairs, [2.0, 2.0]) == pytest.approx(50)


def test_sharpness_and_entropy():
    torch.manual_seed(0)
    log_probs = (3 * torch.randn(3, 5, 4)).log_softmax(2)  # (N, T, V)
    log_probs[1, 0] = torch.tensor([-math.inf, 0, -math.inf, -math.inf])
    log_probs[1, 1] = -math.log(4)
    lengths = torch.tensor([5, 2, 3])
    sharpness, entropy = sharpness_and_entropy(log_probs, lengths)
    for n, length in enumerate(lengths.tolist()):
        largest, entropies = [], []
        for t in range(length):
            p = [math.exp(x) for x in log_probs[n, t].tolist()]
            largest.append(max(p))
            entropies.append(-sum(x * math.log(x) for x in p if x))
        assert sharpness[n].item() == pytest.approx(mean(largest), rel=1e-5)
        assert entropy[n].item() == pytest.approx(mean(entropies), rel=1e-5)
    assert sharpness[1].item() == pytest.approx((1 + 1 / 4) / 2)
    assert entropy[1].item() == pytest.approx(math.log(4) / 2)
    log_probs[1, 2:] = math.nan  # padding
    again = sharpness_and_entropy(log_probs, lengths)
    assert torch.equal(again[0], sharpness) and torch.equal(again[1], entropy)


def test_runs_of_words():
    runs = path_runs([0, 1, 0, 2, 1, 0], 1.0, "_xy")
    words = (Interval(1, 4, "ab"), Interval(4, 5, "c"))
    assert runs_of_words(runs, words) == [
        Interval(1, 2, "ab"),
        Interval(3, 4, "ab"),
        Interval(4, 5, "c"),
    ]
    for bad in (words[:1], words[1:], ()):
        with pytest.raises(ValueError, match="in none of the aligned words"):
            runs_of_words(runs, bad)


def test_measures_of_a_set_by_hand():
    """Utterances of 10 and 30 frames of 0.1 s; the second has no true times."""
    tokens = ["_", "a", "b", "c"]
    paths = [[0, 1, 1, 2, 0, 0, 0, 3, 0, 0], [0] * 4 + [1] + [0] * 25]
    first, second = (path_runs(path, 0.1, tokens) for path in paths)
    words = (Interval(0.1, 0.4, "ab"), Interval(0.7, 0.8, "c"))
    known = Measured(
        AlignedUtterance("known", tuple(first), words, 1.0),
        first,
        true_words=(Interval(0.0, 0.4, "ab"), Interval(0.6, 1.0, "c")),
        true_tokens=(Interval(0.0, 0.2, "a"), Interval(0.2, 0.4, "b"), Interval(0.6, 1.0, "c")),
        peaks=[0.15, 0.35, 0.75],
        sharpness=0.9,
        entropy=0.2,
    )
    unknown = Measured(AlignedUtterance("unknown", tuple(second), (), 3.0), second, sharpness=0.5)
    values = measure([known, unknown], frame_shift=0.1)
    assert values == pytest.approx(
        {
            **boundary_errors([(known.aligned.words, known.true_words)]),
            **boundary_errors([(first, known.true_tokens)], "token"),
            "emission_delay_ms": 1000 * (0.05 + 0.05 - 0.05) / 3,
            "blank_fraction": 35 / 40,
            "label_run_frames": 5 / 4,
            "peakiness": 8 / 4,
            # ab: 3 frames of 4; c: 1 of 4; nothing: 6 of 2.
            "word_occupancy_error": 40,
            # a: 2 of 2; b: 1 of 2; c: 1 of 4; nothing: 6 of 2.
            "token_occupancy_error": 40,
            "sharpness": 0.6,
            "entropy_nats": 0.2,
        }
    )
    assert values["word_boundary_error_ms"] == pytest.approx((100 + 0 + 100 + 200) / 4)
    assert values["token_boundary_error_ms"] == pytest.approx((100 + 100 + 100 + 0 + 100 + 200) / 6)
    assert measure([unknown], 0.1) == pytest.approx(
        {"blank_fraction": 29 / 30, "label_run_frames": 1, "sharpness": 0.5}
    )
    assert measure([], 0.1) == {}


def test_measure_wants_a_run_and_a_peak_for_each_token():
    runs = path_runs([1, 2], 0.1, "_ab")
    aligned = AlignedUtterance("utt", tuple(runs), (Interval(0, 0.2, "ab"),), 0.2)
    for wrong in (Measured(aligned, runs[:1]), Measured(aligned, runs, peaks=[0.05])):
        with pytest.raises(ValueError, match="utt: 2 tokens"):
            measure([wrong], 0.1)


def test_a_transducers_tokens_of_one_frame_part_it(tmp_path):
    """As `aligned_utterance` has it, the runs of such tokens are together one frame."""
    tokenizer = make_lang(tmp_path / "lang_word", ["x y z"], TokenOptions(kind="word"))
    words = [(word, tokenizer.encode(word)) for word in "xyz"]
    aligned = aligned_utterance("utt", words, Alignment((2, 2, 5), 0.0, 10), 4, tokenizer)
    values = measure([Measured(aligned, aligned.tokens)], 0.04)
    assert values["blank_fraction"] == pytest.approx(8 / 10)
    assert values["label_run_frames"] == pytest.approx(2 / 3)


def test_matching():
    phones = (Interval(0, 0.1, "f"), Interval(0.1, 0.2, "ɔː"))
    word = (Interval(0, 0.2, "FOUR"),)
    assert matching([Interval(0.1, 0.2, "FOUR")], phones, word) == word
    assert matching([i._replace(start=0.05) for i in phones], phones, word) == phones
    assert matching([Interval(0, 1, "F"), Interval(1, 2, "O")], phones, word) == ()


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """A set "dev" with two utterances of a recording, the second without times; "test" has none."""
    audio = str(tmp_path / "audio.wav")
    soundfile.write(audio, np.zeros(16000), 8000)
    words = (kaldi.Interval(0.5, 0.25, "hello"), kaldi.Interval(0.75, 0.125, "world"))
    phones = (kaldi.Interval(0.5, 0.125, "h"),)
    timed = kaldi.Utterance("ann-1", "ann", "hello world", audio, "rec", 0.5, 1.0, words, phones)
    silent = kaldi.Utterance("ann-2", "ann", "again", audio, "rec", 1.0, None)
    found = Corpus(tmp_path / "tiny")
    for name, utterances in (("dev", [timed, silent]), ("test", [silent])):
        kaldi.write_data_dir(found.root / name, utterances)
        path = found.manifest("supervisions", name)
        path.parent.mkdir(exist_ok=True)
        to_manifests(found.root / name)[1].to_file(path)
    return found


def test_true_times_count_from_the_start_of_the_utterance(corpus):
    assert true_times(corpus, "dev") == {
        "ann-1": (Interval(0, 0.25, "hello"), Interval(0.25, 0.375, "world"))
    }
    assert true_times(corpus, "dev", "phone") == {"ann-1": (Interval(0, 0.125, "h"),)}
    assert true_times(corpus, "test") == {}
    with pytest.raises(UserError, match="has no set other; it has dev, test"):
        true_times(corpus, "other")


def test_a_lone_word_mark_is_part_of_no_word():
    # "▁ a b" with the mark in a pause of 0.2 s before a word of 0.2 s, which the letters fill.
    runs = (Interval(0.1, 0.3, "▁"), Interval(0.3, 0.4, "a"), Interval(0.4, 0.5, "b"))
    word = (Interval(0.3, 0.5, "ab"),)
    values = measure([Measured(AlignedUtterance("u", runs, word, 1.0), runs, word)], 0.02)
    assert values["peakiness"] == pytest.approx(1)
    assert values["word_occupancy_error"] == pytest.approx(0)
    assert values["blank_fraction"] == pytest.approx(0.6)  # on the path it is a label
