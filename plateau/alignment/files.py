"""Alignments as files: ctm, Praat's TextGrid, Lhotse's supervisions, and frames for training.

A word lasts from its first token's start to its last token's end. A lone ``▁``, with which words
spelt by characters begin, is no part of it: nothing is said there, and it lies anywhere in the
pause before. On a CTC path a token lasts for its run of frames. A transducer says where a token is
emitted, not how long it is: so it lasts until the next one of the same word, and the last one of a
word for a frame. Tokens that share a frame (topology ``rnnt``) divide it in equal parts. All times
are whole milliseconds within the audio (`plateau.decoding.files.in_milliseconds`).

The confidence of a word is exp(mean of log p_t(y)) over the frames t that have one of its tokens y
on the path: the duration-normalised posterior of Williams, Renals 1999, "Confidence measures from
local posterior probability estimates". Frames of blank within the word do not count: they would
hide how unlikely the few frames with tokens are where a word was not said.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lhotse import SupervisionSegment, SupervisionSet
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from plateau.config import UserError
from plateau.data.features import frame_times
from plateau.data.tokens import WORD_START, Tokenizer, encode_words
from plateau.decoding.files import (
    Interval,
    check_fields,
    ctm,
    emitted,
    in_milliseconds,
    whole_milliseconds,
    write_ctm,
)
from plateau.io import check_text, file_name, replacing, write_text
from plateau.text import normalise, read_lines

Words = list[tuple[str, list[int]]]  # words and the token ids of each


@dataclass(frozen=True)
class Alignment:
    """The best path of an utterance's transcript, in frames of the encoder, which count from 0.

    Args:
        frames: for each token the one that emits it, or that of its run where its posterior is
            largest; empty where no path fits
        score: log-probability of the path, nats; -inf where no path fits
        num_frames: T', frames of the encoder
        runs: for each token its first frame and the one after its last; None where the path says
            only when a token is emitted
        log_posteriors: for each token, summed over its frames, nats; None if they are not known
        sharpness: of `plateau.alignment.measures.sharpness_and_entropy`; None if there is none
        entropy: the same; nats per frame
    """

    frames: tuple[int, ...]
    score: float
    num_frames: int
    runs: tuple[tuple[int, int], ...] | None = None
    log_posteriors: tuple[float, ...] | None = None
    sharpness: float | None = None
    entropy: float | None = None


@dataclass(frozen=True)
class AlignedUtterance:
    """When an utterance's tokens and words were said.

    Args:
        id: of the utterance
        tokens: in order
        words: in order
        duration: seconds, of the audio
    """

    id: str
    tokens: tuple[Interval, ...]
    words: tuple[Interval, ...]
    duration: float


def words_of(tokenizer: Tokenizer, text: str) -> Words:
    """The words of a transcript with their tokens, which together are the transcript's tokens."""
    return list(zip(normalise(text).split(), encode_words(tokenizer, text), strict=True))


def aligned_utterance(
    id: str,
    words: Words,
    alignment: Alignment,
    subsampling_factor: int,
    tokenizer: Tokenizer,
    duration: float,
) -> AlignedUtterance:
    """Put times and confidences to tokens and words; see the module.

    Args:
        id: of the utterance.
        words: of `words_of`.
        alignment: of these words; frames and runs in order.
        subsampling_factor: feature frames for each frame of the encoder.
        tokenizer: names the tokens.
        duration: seconds, of the audio; times are within it.

    Raises:
        ValueError: not one frame for each token.
    """
    ids = [token for _, tokens in words for token in tokens]
    if len(ids) != len(alignment.frames):
        raise ValueError(f"{id}: {len(ids)} tokens and {len(alignment.frames)} frames")
    pieces = token_times(alignment, subsampling_factor)
    raw: list[Interval] = []
    for _, tokens in words:
        first = len(raw)
        last = first + len(tokens) - 1
        for i in range(first, last + 1):
            until_next = alignment.runs is None and i < last
            end = pieces[i + 1][0] if until_next else pieces[i][1]
            raw.append(Interval(pieces[i][0], end, tokenizer.tokens[ids[i]]))
    token_intervals = in_milliseconds(raw, duration)

    word_intervals: list[Interval] = []
    end = 0
    for word, tokens in words:
        first, end = end, end + len(tokens)
        if not tokens:  # a word without tokens has no time
            continue
        if token_intervals[first].label == WORD_START and len(tokens) > 1:
            first += 1
        confidence = None
        if alignment.log_posteriors is not None:
            runs = (alignment.runs or [(f, f + 1) for f in alignment.frames])[first:end]
            total = sum(alignment.log_posteriors[first:end])
            confidence = math.exp(total / sum(after - begin for begin, after in runs))
        own = token_intervals[first:end]
        word_intervals.append(Interval(own[0].start, own[-1].end, word, confidence))
    return AlignedUtterance(id, tuple(token_intervals), tuple(word_intervals), duration)


def token_times(alignment: Alignment, subsampling_factor: int) -> list[tuple[float, float]]:
    """Start and end (seconds) of the frames that have each token on the path."""
    if alignment.runs is None:
        return emitted(alignment.frames, subsampling_factor)
    return [
        (frame_times(first, subsampling_factor)[0], frame_times(end - 1, subsampling_factor)[1])
        for first, end in alignment.runs
    ]


def write_alignments(directory: Path, utterances: Sequence[AlignedUtterance]) -> dict[str, str]:
    """Write ``tokens.ctm``, ``words.ctm`` and a TextGrid of each utterance.

    Times count from the start of the utterance. ``words.ctm`` has the confidences where these are
    known. A TextGrid has the tiers "words" and "tokens"; `plateau.io.file_name` names it after the
    utterance. TextGrids that are in the directory already are removed first.

    Returns:
        the TextGrids that could not be written, by the ids of their utterances, and why

    Raises:
        UserError: an id, a label or a time cannot be in these files; nothing is changed.
    """
    directory = Path(directory)
    timed = {
        directory / f"{name}.ctm": {u.id: getattr(u, name) for u in utterances}
        for name in ("tokens", "words")
    }
    for path, intervals in timed.items():
        check_text(path, ctm(path, intervals))
    textgrids = {}
    for utterance in utterances:
        tiers = {"words": utterance.words, "tokens": utterance.tokens}
        check_text(directory, utterance.id)
        try:
            textgrids[utterance.id] = textgrid(tiers, utterance.duration)
        except ValueError as error:
            path = textgrid_path(directory, utterance.id)
            raise UserError(f"{path}: not written: {error}") from None
    for old in directory.glob("*.TextGrid"):
        old.unlink()
    for path, intervals in timed.items():
        write_ctm(path, intervals)
    failed = {}
    for id, text in textgrids.items():
        try:
            write_text(textgrid_path(directory, id), text)
        except OSError as error:
            failed[id] = error.strerror or str(error)
    return failed


def textgrid_path(directory: Path, id: str) -> Path:
    """Where `write_alignments` puts an utterance's TextGrid."""
    return directory / file_name(id, ".TextGrid")


def write_supervisions(
    path: Path, cuts: Iterable[Cut], utterances: Iterable[AlignedUtterance]
) -> None:
    """Write a Lhotse manifest of supervisions with alignments "word" and "token".

    As everywhere in Lhotse, times count from the start of the recording. Words have their
    confidence as score.

    Args:
        path: ends in ``.jsonl.gz``.
        cuts: of the utterances, each with one supervision; other cuts are left out.
        utterances: aligned.

    Raises:
        UserError: an id or a label has a character that no text has.
    """
    of_id = {utterance.id: utterance for utterance in utterances}
    for id, utterance in of_id.items():
        check_text(path, " ".join([id, *(i.label for i in utterance.words + utterance.tokens)]))
    with replacing(path) as temporary:
        SupervisionSet.from_segments(
            _supervision(cut, of_id[cut.id]) for cut in cuts if cut.id in of_id
        ).to_file(temporary)


def _supervision(cut: Cut, utterance: AlignedUtterance) -> SupervisionSegment:
    (supervision,) = cut.supervisions
    start = round(cut.start + supervision.start, 8)  # 0.454, not 0.45399999999999996
    alignment = {}
    for kind, intervals in (("word", utterance.words), ("token", utterance.tokens)):
        alignment[kind] = [
            AlignmentItem(
                label,
                round(start + begin, 6),
                round(end - begin, 6),
                None if confidence is None else round(confidence, 6),
            )
            for begin, end, label, confidence in intervals
        ]
    duration = round(supervision.duration, 8)
    return replace(supervision, start=start, duration=duration, alignment=alignment)


def textgrid(tiers: Mapping[str, Sequence[Interval]], duration: float) -> str:
    """Interval tiers in Praat's long text format, with empty intervals where nothing is said.

    Times are rounded to milliseconds, and the duration down. Quotes in labels are doubled, as Praat
    does.

    Args:
        tiers: by name, intervals in order.
        duration: seconds.

    Raises:
        ValueError: intervals that are empty, overlap, or are not within the duration.
    """
    duration = whole_milliseconds(duration) / 1000
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
    """Write a line ``<utterance> <frame> …`` for each utterance, a frame for each token.

    Raises:
        UserError: an id or a frame cannot be in such a line.
    """
    check_fields(path, *frames)
    for id, of_tokens in frames.items():
        if not all(0 <= frame < 10**9 for frame in of_tokens):
            raise UserError(f"{path}: not written: the frames of {id} are {list(of_tokens)}")
    lines = (" ".join([id, *map(str, frames[id])]) for id in sorted(frames))
    write_text(path, "".join(line + "\n" for line in lines))


def read_frames(path: Path) -> dict[str, list[int]]:
    """Read what `write_frames` wrote.

    Raises:
        UserError: no such file, or a line of another form.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: no such alignment; make it with <recipe>/align.py")
    frames: dict[str, list[int]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        id, *fields = line.split() or [""]
        if not id or id in frames or not all(re.fullmatch("[0-9]{1,9}", f) for f in fields):
            raise UserError(f"{path}:{number}: not '<utterance> <frame> …', each utterance once")
        frames[id] = [int(field) for field in fields]
    return frames


def _fill(intervals: Iterable[Interval], duration: float) -> list[Interval]:
    """The intervals, rounded, with empty labels between and around them."""
    filled: list[Interval] = []
    now, end_of_all = 0.0, duration
    for start, end, label, _ in intervals:
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
    return round(seconds, 3)


def _seconds(value: float) -> str:
    """As Praat writes numbers: no more digits than needed."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _quoted(label: str) -> str:
    return '"' + label.replace('"', '""') + '"'
