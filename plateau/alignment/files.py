"""Alignments as files: ctm, Praat's TextGrid, and frames for training.

A transducer says where a token is emitted, not how long it is. So a token lasts until the next one
of the same word, and the last one of a word for a frame; a word lasts from its first token's start
to its last token's end. Tokens that share a frame (topology ``rnnt``) divide it in equal parts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from plateau.config import UserError
from plateau.data.features import FRAME_SHIFT, frame_times
from plateau.data.tokens import Tokenizer
from plateau.decoding.scoring import CtmEntry, write_ctm
from plateau.io import write_text
from plateau.text import normalise

Words = list[tuple[str, list[int]]]  # words and the token ids of each


class Interval(NamedTuple):
    """A piece of an utterance and what is said there."""

    start: float  # seconds
    end: float  # seconds
    label: str


@dataclass(frozen=True)
class AlignedUtterance:
    """When an utterance's tokens and words were said.

    Args:
        id: of the utterance
        tokens: in order
        words: in order
        duration: seconds; of the encoder's frames, so up to one frame more than the audio
    """

    id: str
    tokens: tuple[Interval, ...]
    words: tuple[Interval, ...]
    duration: float


def words_of(tokenizer: Tokenizer, text: str) -> Words:
    """The words of a transcript with their tokens, which together are the transcript's tokens."""
    return [(word, tokenizer.encode(word)) for word in normalise(text).split()]


def aligned_utterance(
    id: str,
    words: Words,
    frames: Sequence[int],
    num_frames: int,
    subsampling_factor: int,
    tokenizer: Tokenizer,
) -> AlignedUtterance:
    """Put times to tokens and words; see the module.

    Args:
        id: of the utterance.
        words: of `words_of`.
        frames: of the encoder, from 0, for each token; ascending, equal ones allowed.
        num_frames: T', frames of the encoder.
        subsampling_factor: feature frames for each frame of the encoder.
        tokenizer: names the tokens.

    Raises:
        ValueError: not one frame for each token.
    """
    ids = [token for _, tokens in words for token in tokens]
    if len(ids) != len(frames):
        raise ValueError(f"{id}: {len(ids)} tokens and {len(frames)} frames")
    pieces = emitted(frames, subsampling_factor)
    token_intervals: list[Interval] = []
    word_intervals: list[Interval] = []
    for word, tokens in words:
        if not tokens:  # a word without tokens has no time
            continue
        first = len(token_intervals)
        last = first + len(tokens) - 1
        for i in range(first, last + 1):
            end = pieces[i][1] if i == last else pieces[i + 1][0]
            token_intervals.append(Interval(pieces[i][0], end, tokenizer.tokens[ids[i]]))
        word_intervals.append(Interval(pieces[first][0], pieces[last][1], word))
    duration = num_frames * subsampling_factor * FRAME_SHIFT
    return AlignedUtterance(id, tuple(token_intervals), tuple(word_intervals), duration)


def emitted(frames: Sequence[int], subsampling_factor: int) -> list[tuple[float, float]]:
    """Start and end (seconds) of the frame that emits each token; tokens of one frame divide it."""
    in_frame, seen = Counter(frames), Counter[int]()
    pieces = []
    for frame in frames:
        start, end = frame_times(frame, subsampling_factor)
        piece = (end - start) / in_frame[frame]
        pieces.append((start + seen[frame] * piece, start + (seen[frame] + 1) * piece))
        seen[frame] += 1
    return pieces


def write_alignments(directory: Path, utterances: Sequence[AlignedUtterance]) -> None:
    """Write ``tokens.ctm``, ``words.ctm`` and a TextGrid ``<id>.TextGrid`` of each utterance.

    A TextGrid has the tiers "words" and "tokens". In its file's name, ``/`` of an id is ``%2F``.
    TextGrids that are in the directory already are removed first.
    """
    directory = Path(directory)
    for old in directory.glob("*.TextGrid"):
        old.unlink()
    for name in ("tokens", "words"):
        write_ctm(
            directory / f"{name}.ctm",
            (
                CtmEntry(
                    utterance.id, interval.start, interval.end - interval.start, interval.label
                )
                for utterance in utterances
                for interval in getattr(utterance, name)
            ),
        )
    for utterance in utterances:
        tiers = {"words": utterance.words, "tokens": utterance.tokens}
        path = directory / f"{utterance.id.replace('/', '%2F')}.TextGrid"
        write_text(path, textgrid(tiers, utterance.duration))


def textgrid(tiers: Mapping[str, Sequence[Interval]], duration: float) -> str:
    """Interval tiers in Praat's long text format, with empty intervals where nothing is said.

    Times are rounded to microseconds. Quotes in labels are doubled, as Praat does.

    Args:
        tiers: by name, intervals in order.
        duration: seconds.

    Raises:
        ValueError: intervals that are empty, overlap, or are not within the duration.
    """
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_seconds(duration)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        filled = _fill(intervals, duration)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quoted(name)}",
            "        xmin = 0",
            f"        xmax = {_seconds(duration)}",
            f"        intervals: size = {len(filled)}",
        ]
        for i, interval in enumerate(filled, start=1):
            lines += [
                f"        intervals [{i}]:",
                f"            xmin = {_seconds(interval.start)}",
                f"            xmax = {_seconds(interval.end)}",
                f"            text = {_quoted(interval.label)}",
            ]
    return "\n".join(lines) + "\n"


def write_frames(path: Path, frames: Mapping[str, Sequence[int]]) -> None:
    """Write a line ``<utterance> <frame> …`` for each utterance, a frame for each token."""
    lines = (" ".join([id, *map(str, frames[id])]) for id in sorted(frames))
    write_text(path, "".join(line + "\n" for line in lines))


def read_frames(path: Path) -> dict[str, list[int]]:
    """Read what `write_frames` wrote.

    Raises:
        UserError: no such file, or a line of another form.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such alignment; make it with transducer/align.py") from None
    frames: dict[str, list[int]] = {}
    for number, line in enumerate(lines, start=1):
        id, *fields = line.split() or [""]
        if not id or id in frames or not all(field.isdecimal() for field in fields):
            raise UserError(f"{path}:{number}: not '<utterance> <frame> …', each utterance once")
        frames[id] = [int(field) for field in fields]
    return frames


def _fill(intervals: Iterable[Interval], duration: float) -> list[Interval]:
    """The intervals, rounded, with empty labels between and around them."""
    filled: list[Interval] = []
    now, end_of_all = 0.0, _rounded(duration)
    for start, end, label in intervals:
        start, end = _rounded(start), _rounded(end)
        if not now <= start < end <= end_of_all:
            raise ValueError(
                f"interval {label!r} from {start} to {end} s: it is empty, starts before {now} s, "
                f"where the one before ends, or ends after {end_of_all} s, where all ends"
            )
        if now < start:
            filled.append(Interval(now, start, ""))
        filled.append(Interval(start, end, label))
        now = end
    if now < end_of_all:
        filled.append(Interval(now, end_of_all, ""))
    return filled


def _rounded(seconds: float) -> float:
    return round(seconds, 6)


def _seconds(value: float) -> str:
    """As Praat writes numbers: no more digits than needed."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _quoted(label: str) -> str:
    return '"' + label.replace('"', '""') + '"'
