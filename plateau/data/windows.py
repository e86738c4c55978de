"""Windows of speech: some words and the stretch of audio that begins with the first of them.

An index says where each window begins: utterance, first word, first frame. It is made once, in one
pass over the utterances, and takes 20 bytes a window. Features and words are read when a window is
asked for, and to shuffle is to draw another order of numbers. What a window needs of its utterance
(where its features lie, its words and their times) waits in a file, not in memory.
"""

import dataclasses
import json
import os
import random
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from lhotse import SupervisionSegment
from lhotse.cut import MonoCut
from lhotse.serialization import deserialize_item

from plateau.data.features import FRAME_SHIFT
from plateau.data.lines import Interval
from plateau.data.manifests import alignment_in_cut
from plateau.data.masking import MaskShareOptions, masked_positions
from plateau.data.tokens import BLANK_ID
from plateau.errors import UserError
from plateau.ranges import at_least, check_options
from plateau.text import normalise

PADDING = BLANK_ID  # in place of a word where a window has fewer; no word is blank
SHOWN = 5  # windows that an audit names


@dataclass(frozen=True)
class WindowOptions:
    """What a window is, and how windows become batches.

    Args:
        frames: steps of audio in a window, at most: it begins with its first word, and ends after
            so many or with the utterance
        words: words in a window; fewer where the utterance has no more
        word_stride: words between the starts of two windows of an utterance
        frame_stride: feature frames (10 ms) for each step of audio
        frame_join: stack: a step has all of its frames, one beside the other; skip: it has the
            first, the others are left out
        side: where the padding of words goes; that of audio goes to the right, for audio begins
            with the first word
        padding: mask: out of attention and loss, so the model is told how many words there are.
            token: padding is a word of its own, which the model has to say, and all is attended to
        batch_size: windows in a batch
        alignment: an experiment's folder; times of words are those that its stage 7 wrote. Without
            it, they are those of the corpus (`ctm`)
    """

    frames: int = 128
    words: int = 8
    word_stride: int = 1
    frame_stride: int = 6
    frame_join: Literal["stack", "skip"] = "stack"
    side: Literal["right", "left"] = "right"
    padding: Literal["mask", "token"] = "mask"
    batch_size: int = 12
    alignment: str = ""

    def __post_init__(self) -> None:
        check_options(
            self,
            "window",
            frames=at_least(1, 10**5),
            words=at_least(1, 1000),
            word_stride=at_least(1, 10**6),
            frame_stride=at_least(1, 1000),
            batch_size=at_least(1, 10**6),
        )

    @property
    def feature_frames(self) -> int:
        """Feature frames of a window, at most."""
        return self.frames * self.frame_stride


@dataclass(frozen=True)
class WindowIndex:
    """Where windows begin, by their numbers.

    Args:
        utterance: (M,) int32, number of the utterance
        first_word: (M,) int32, from 0
        first_frame: (M,) int32, feature frame of the utterance
        num_frames: (M,) int32, feature frames
        num_words: (M,) int16
        outside: (M,) int16, words that are not within the window's audio
    """

    utterance: np.ndarray
    first_word: np.ndarray
    first_frame: np.ndarray
    num_frames: np.ndarray
    num_words: np.ndarray
    outside: np.ndarray

    def __len__(self) -> int:
        return len(self.utterance)


def make_index(
    utterances: Iterable[tuple[Sequence[Interval], float]], options: WindowOptions
) -> WindowIndex:
    """Find where windows begin; the utterances are gone through once, and none is kept.

    An utterance's first window begins with its first word, the next one `word_stride` words later,
    and so on until the last word is in one.

    Args:
        utterances: timed words, in seconds from the start of the utterance, at least one; and
            seconds of its audio.
        options: see `WindowOptions`.
    """
    columns = [array(kind) for kind in "iiiihh"]
    for number, (words, duration) in enumerate(utterances):
        starts = np.array([word.start for word in words])  # (W,)
        ends = starts + [word.duration for word in words]
        beyond = max(0, len(words) - options.words)
        stop = 1 + options.word_stride * -(-beyond // options.word_stride)
        first_words = np.arange(0, min(stop, len(words)), options.word_stride)  # (m,)
        num_words = np.minimum(len(words) - first_words, options.words)
        # Of times that cannot be, the nearest that can; the audit tells of them.
        last_frame = max(round(duration / FRAME_SHIFT) - 1, 0)
        first_frames = np.floor(starts[first_words] / FRAME_SHIFT + 1e-6).clip(0, last_frame)
        num_frames = np.minimum(last_frame + 1 - first_frames, options.feature_frames)  # (m,)
        # A time is not a whole number of frames.
        earliest, latest = first_frames - 0.5, first_frames + num_frames + 0.5
        word = np.minimum(first_words[:, None] + np.arange(options.words), len(words) - 1)
        early = starts[word] < earliest[:, None] * FRAME_SHIFT  # (m, options.words)
        late = ends[word] > latest[:, None] * FRAME_SHIFT
        there = np.arange(options.words) < num_words[:, None]
        outside = ((early | late) & there).sum(1)
        rows = (first_words, first_frames, num_frames, num_words, outside)
        numbers = np.full(len(first_words), number)
        for column, values in zip(columns, (numbers, *rows), strict=True):
            column.frombytes(values.astype(column.typecode).tobytes())
    return WindowIndex(*(np.frombuffer(column, column.typecode) for column in columns))


class _Spool:
    """Lines of JSON in a file without a name; an item is read when it is asked for."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (as long as this object)
        self._ends = array("q", [0])

    def append(self, item: dict[str, Any]) -> None:
        """Write an item at the end."""
        line = json.dumps(item, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))

    def finish(self) -> None:
        """Nothing more will be written."""
        self._file.flush()

    def __getitem__(self, number: int) -> dict[str, Any]:
        start, end = self._ends[number], self._ends[number + 1]
        # Processes that load ahead share the file, and with `seek` its position.
        return json.loads(os.pread(self._file.fileno(), end - start, start))


class Window(NamedTuple):
    """What a window is of.

    Args:
        cut: its audio, named ``<utterance>:<number of the first word, from 1>``
        words: in seconds from the start of the cut
    """

    cut: MonoCut
    words: tuple[Interval, ...]


class Windows:
    """The windows of a set of utterances; see the module.

    Args:
        cuts: utterances, each with one supervision; gone through once.
        options: see `WindowOptions`.
        times: words by utterance, with their starts and ends in seconds from the start of the
            utterance; None: those of the cuts.
        name: of the set.

    Raises:
        UserError: no utterance has times of its words.
    """

    def __init__(
        self,
        cuts: Iterable[MonoCut],
        options: WindowOptions,
        times: Mapping[str, Sequence[tuple]] | None = None,
        name: str = "",
    ) -> None:
        self.options, self.name = options, name
        self.left_out: list[str] = []  # utterances, and why
        self._spool = _Spool()
        self.index = make_index(self._spooled(cuts, times), options)
        self._spool.finish()
        if not len(self.index):
            why = self.left_out[0] if self.left_out else "there are no utterances"
            raise UserError(
                f"{name}: no windows: {why}\nthey need times of words: a file ctm in the data "
                "directory, or window.alignment=EXP of an experiment that aligned the set (stage 7)"
            )

    def _spooled(
        self, cuts: Iterable[MonoCut], times: Mapping[str, Sequence[tuple]] | None
    ) -> Iterator[tuple[Sequence[Interval], float]]:
        """The utterances that have times, written to the spool as they go by."""
        for cut in cuts:
            if times is None:
                words = alignment_in_cut(cut, "word")
            else:
                words = [Interval(w[0], w[1] - w[0], w[2]) for w in times.get(cut.id, ())]
            text = normalise(cut.supervisions[0].text or "").split()
            if not words:
                self.left_out.append(f"{cut.id} has no times of words")
            elif [word.label for word in words] != text:
                self.left_out.append(
                    f"{cut.id} has times of {len(words)} words, which are not those of its text"
                )
            else:
                bare = dataclasses.replace(cut, supervisions=[])
                rows = [(word.start, word.duration, word.label) for word in words]
                self._spool.append({"cut": bare.to_dict(), "words": rows})
                yield words, cut.duration

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Window:
        index = self.index
        found = self._spool[index.utterance[number]]
        cut = deserialize_item(found["cut"])
        first, count = int(index.first_word[number]), int(index.num_words[number])
        start = float(index.first_frame[number] * FRAME_SHIFT)
        words = tuple(
            Interval(begin - start, duration, label)
            for begin, duration, label in found["words"][first : first + count]
        )
        duration = min(self.options.feature_frames * FRAME_SHIFT, cut.duration - start)
        id = f"{cut.id}:{first + 1}"
        text = " ".join(word.label for word in words)
        supervision = SupervisionSegment(id, cut.recording_id, 0.0, duration, cut.channel, text)
        piece = dataclasses.replace(
            cut,
            id=id,
            start=round(cut.start + start, 8),
            duration=round(duration, 8),
            supervisions=[supervision],
        )
        return Window(piece, words)

    def audit(self) -> list[str]:
        """Windows with words that are not within their audio, and utterances that are left out."""
        notes = []
        (bad,) = np.nonzero(self.index.outside)
        if len(bad):
            names = [f"{self[n].cut.id} ({self.index.outside[n]})" for n in bad[:SHOWN]]
            notes.append(
                f"{self.name}: {len(bad)} of {len(self)} windows have words that are not within "
                f"their audio: {', '.join(names)}{', …' * (len(bad) > SHOWN)}; raise window.frames "
                "or window.frame_stride, or lower window.words"
            )
        if self.left_out:
            more = f" ({len(self.left_out)} such)" if len(self.left_out) > 1 else ""
            notes.append(f"{self.name}: no windows of {self.left_out[0]}{more}")
        return notes


def masked_words(
    num_words: int, options: MaskShareOptions, step: int, generator: random.Random
) -> set[int]:
    """Which of so many words are masked at a step of training, by number from 0."""
    share = options.draw_share(step, generator)
    return set(masked_positions([[0]] * num_words, share, "word", generator))
