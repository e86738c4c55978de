import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.features import Features
from lhotse.testing.dummies import dummy_recording

from plateau.config import UserError
from plateau.data.tokens import LexiconTokenizer, min_frames
from plateau.training.selection import long_enough, num_frames

TOKENIZER = LexiconTokenizer(
    ["<blk>", "<unk>", "a", "b"], {"a": ["a"], "b": ["b"], "bb": ["b", "b"]}, phones=False
)


def cut(name: str, text: str | None, frames: int) -> MonoCut:
    features = Features("fbank", frames, 4, 0.01, 16000, 0, frames / 100, "memory", "", "")
    supervision = SupervisionSegment(name, name, 0, frames / 100, text=text)
    return MonoCut(name, 0, frames / 100, 0, features=features, supervisions=[supervision])


def ctc_frames(words: list[list[int]]) -> int:
    return min_frames([token for word in words for token in word])


def by_four(frames: int) -> int:
    return (frames + 3) // 4


def test_utterances_too_short_for_their_tokens_are_left_out_and_named(tmp_path, capsys):
    cuts = CutSet.from_cuts(
        [
            cut("three-in-three", "a b a", 12),
            cut("three-in-two", "a b a", 8),
            cut("repeat-in-three", "a a b", 12),  # needs a blank between
            cut("repeat-in-four", "a a b", 13),
            cut("repeat-over-words", "a bb b", 20),  # a b b b: six frames
            cut("silence", "", 1),
            cut("no-text", None, 1),
        ]
    )
    path = tmp_path / "log" / "left_out.txt"
    kept = long_enough(cuts, TOKENIZER, by_four, ctc_frames, path)
    assert [c.id for c in kept] == ["three-in-three", "repeat-in-four", "silence", "no-text"]
    assert path.read_text().splitlines() == [
        "three-in-two needs 3 frames and has 2",
        "repeat-in-three needs 4 frames and has 3",
        "repeat-over-words needs 6 frames and has 5",
    ]
    said = capsys.readouterr().out
    assert "left out 3 of 7 utterances" in said
    assert "three-in-two needs 3 frames and has 2" in said
    assert str(path) in said


def test_nothing_is_said_when_all_are_long_enough(tmp_path, capsys):
    cuts = CutSet.from_cuts([cut("one", "a", 4), cut("two", "a b", 8)])
    assert list(long_enough(cuts, TOKENIZER, by_four, ctc_frames, tmp_path / "list.txt")) == list(
        cuts
    )
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "list.txt").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a b", "by a factor of 2 and more .*; lower the encoder's subsampling"),
        ("a b a b", "by a factor of 4 and more .*; look whether the transcripts belong to"),
    ],
)
def test_nothing_left_is_the_users_mistake(tmp_path, text, said):
    cuts = CutSet.from_cuts([cut("one", text, 4), cut("two", f"{text} a a", 4)])
    with pytest.raises(UserError, match=f"every utterance is too short for its tokens, {said}") as (
        error
    ):
        long_enough(cuts, TOKENIZER, by_four, ctc_frames, tmp_path / "list.txt")
    assert str(tmp_path / "list.txt") in str(error.value)
    assert f"one needs {len(text.split())}" in (tmp_path / "list.txt").read_text()


@pytest.mark.parametrize(("duration", "frames"), [(0.125, 13), (0.135, 14), (0.994, 99), (1, 100)])
def test_frames_still_to_be_computed_are_counted_as_lhotse_does(duration, frames):
    recording = dummy_recording(0, duration=1.0)
    whole = MonoCut("x", 0, duration, 0, recording=recording)
    assert num_frames(whole) == frames
