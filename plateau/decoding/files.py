"""Files of transcripts that others read: trn and ctm, and what they need: words with times.

NIST sclite compares ``hyp.trn`` with ``ref.trn``, or ``hyp.ctm`` with ``ref.stm``, and finds the
word error rate of ``wer.txt`` (Debian's package is sctk, its command ``sctk sclite``):

    sclite -r ref.trn trn -h hyp.trn trn -i spu_id -e utf-8 -s
    sclite -r ref.stm stm -h hyp.ctm ctm -e utf-8 -s

``-s`` compares case; without ``-e`` bytes are characters. In these four files `for_sclite` writes
what sclite would take as markup; the stm is in `plateau.decoding.stm`. Times in files are whole
milliseconds within the audio; see `in_milliseconds`.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from plateau.config import UserError
from plateau.data.features import frame_times
from plateau.data.tokens import SILENCE, WORD_START, SentencePieceTokenizer, Tokenizer
from plateau.io import write_text
from plateau.text import read_lines
from plateau.training.experiment import Experiment

# What sclite takes as markup (alternatives, optional words, the empty word, comments, escapes)
# becomes the full-width form of the same character, which Unicode has at +0xFEE0.
_MARKUP = {ord(c): ord(c) + 0xFEE0 for c in "{}()@;*\\"}
# Words of a ctm that open, part and close alternatives.
_ALTERNATIVES = re.compile(r"(?<!\S)<(?=ALT(?:_BEGIN|_END)?>)", re.IGNORECASE)
# What leaves out a segment of an stm that has it.
IGNORED = "ignore_time_segment_in_scoring"
_IGNORED = re.compile(IGNORED, re.IGNORECASE)


class Interval(NamedTuple):
    """A piece of an utterance and what is said there."""

    start: float  # seconds
    end: float  # seconds
    label: str
    confidence: float | None = None  # 0..1; None if it is not known


def for_sclite(text: str) -> str:
    """The text, word or id without what sclite takes as markup: in full-width forms."""
    text = _IGNORED.sub(lambda match: match[0].replace("_", "＿"), text)
    return _ALTERNATIVES.sub("＜", text.translate(_MARKUP))


def whole_milliseconds(seconds: float) -> int:
    """Milliseconds that are over at this time."""
    return math.floor(1000 * seconds + 1e-6)  # 0.29 s are 289.99999999999994 ms


def in_milliseconds(intervals: Sequence[Interval], duration: float) -> list[Interval]:
    """Intervals with borders at whole milliseconds, within the duration, none of them empty.

    Borders are rounded and clipped. An interval that would be empty lasts for 1 ms, and its
    neighbours make room. Only where there are more intervals than milliseconds, some are empty.

    Args:
        intervals: in order, not overlapping.
        duration: seconds, of the audio.
    """
    borders = []
    now = 0
    for interval in intervals:
        start = max(round(1000 * interval.start), now)
        now = max(round(1000 * interval.end), start + 1)
        borders.append([start, now])
    limit = whole_milliseconds(duration)
    for border in reversed(borders):
        border[1] = min(border[1], limit)
        border[0] = limit = max(min(border[0], border[1] - 1), 0)
    return [
        interval._replace(start=start / 1000, end=end / 1000)
        for interval, (start, end) in zip(intervals, borders, strict=True)
    ]


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


def has_marks(tokenizer: Tokenizer) -> bool:
    """Whether ``▁`` marks where words begin; if not, each token is a word."""
    return isinstance(tokenizer, SentencePieceTokenizer)


def spelt_words(tokens: Sequence[Interval], marked: bool) -> list[Interval]:
    """The words of `Tokenizer.decode`, each from its first to its last token.

    The confidence of a word is the geometric mean of those of its tokens, where all have one.

    Args:
        tokens: in order.
        marked: `has_marks`. A lone ``▁`` belongs to no word: it comes somewhere in the pause
            before. Nor does the token of silence.
    """
    if not marked:
        return [token for token in tokens if token.label != SILENCE]
    text = "".join(token.label for token in tokens).replace(WORD_START, " ")
    token_of = [i for i, token in enumerate(tokens) for _ in token.label]  # of each character
    words = []
    for match in re.finditer(r"\S+", text):
        own = tokens[token_of[match.start()] : token_of[match.end() - 1] + 1]
        confidences = [token.confidence for token in own]
        words.append(Interval(own[0].start, own[-1].end, match[0], geometric_mean(confidences)))
    return words


def geometric_mean(confidences: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    if None in confidences:
        return None
    if 0 in confidences:
        return 0.0
    return math.exp(sum(map(math.log, confidences)) / len(confidences))


def check_fields(path: Path, *fields: str) -> None:
    """See that ids and labels are one field each in the lines of a file.

    Raises:
        UserError: one is empty or has white space.
    """
    for field in fields:
        if field.split() != [field]:
            raise UserError(f"{path}: not written: {field!r} is empty or has white space")


def _check_seconds(path: Path, id: str, *times: float) -> None:
    if not all(0 <= time < 1e9 for time in times):  # thirty years; more has no milliseconds
        raise UserError(f"{path}: not written: {id} has a time that is none, {list(times)} s")


def one_for_sclite(ids: Iterable[str]) -> tuple[str, str] | None:
    """The first two different ids that `for_sclite` makes one of, if there are such."""
    found: dict[str, str] = {}
    for id in ids:
        other = found.setdefault(for_sclite(id), id)
        if other != id:
            return other, id
    return None


def _check_ids(path: Path, ids: Sequence[str]) -> None:
    """As `check_fields`, and that `for_sclite` leaves them different."""
    check_fields(path, *ids)
    if same := one_for_sclite(ids):
        raise UserError(f"{path}: not written: {' and '.join(same)} would be one id for sclite")


def write_trn(path: Path, texts: Mapping[str, str]) -> None:
    """Write ``<text> (<utterance>)`` for sclite, sorted by utterance.

    Raises:
        UserError: an id or a text could not be read back.
    """
    _check_ids(path, list(texts))
    for id, text in texts.items():
        if "\n" in text or text != text.strip():
            raise UserError(f"{path}: not written: the text of {id} is not one line of words")
    lines = (f"{for_sclite(texts[id])} ({for_sclite(id)})\n" for id in sorted(texts))
    write_text(path, "".join(lines))


def read_trn(path: Path) -> dict[str, str]:
    """Texts by utterance, both as `for_sclite` wrote them.

    Raises:
        UserError: no such file, or not a trn.
    """
    found = {}
    for number, line in enumerate(_lines(path), start=1):
        match = re.fullmatch(r"(.*?)\s*\(([^()\s]+)\)", line)
        if match is None:
            raise UserError(f"{path}, line {number}: not of the form '<text> (<utterance>)'")
        if match[2] in found:
            raise UserError(f"{path}, line {number}: '{match[2]}' is there for the second time")
        found[match[2]] = match[1]
    return found


def write_ctm(path: Path, utterances: Mapping[str, Sequence[Interval]]) -> None:
    """Write ``<utterance> 1 <start> <duration> <label> [confidence]``, sorted by utterance.

    Args:
        path: where to.
        utterances: intervals of each, in order, in milliseconds.

    Raises:
        UserError: an id, a label or a number cannot be in such a line.
    """
    write_text(path, ctm(path, utterances))


def ctm(path: Path, utterances: Mapping[str, Sequence[Interval]]) -> str:
    """What `write_ctm` writes to this path; raises as it does."""
    lines = []
    for id in sorted(utterances):
        for start, end, label, confidence in utterances[id]:
            check_fields(path, id, label)
            _check_seconds(path, id, start, end - start)
            if not 0 <= round(confidence or 0, 3) <= 1:
                raise UserError(f"{path}: not written: {id} has a confidence of {confidence}")
            duration = round(end, 3) - round(start, 3)
            line = f"{id} 1 {start:.3f} {duration:.3f} {label}"
            lines.append(line if confidence is None else f"{line} {confidence:.3f}")
    return "".join(line + "\n" for line in lines)


def read_ctm(path: Path) -> dict[str, tuple[Interval, ...]]:
    """What `write_ctm` wrote: intervals by utterance, in order.

    Raises:
        UserError: no such file, or not a ctm.
    """
    found: dict[str, list[Interval]] = defaultdict(list)
    for number, line in enumerate(_lines(path), start=1):
        try:
            utterance, _, start, duration, label, *rest = line.split()
            confidence = float(rest[0]) if rest else None
            end = round(float(start) + float(duration), 6)
            if not 0 <= float(start) <= end < math.inf or not 0 <= (confidence or 0) <= 1:
                raise ValueError
            found[utterance].append(Interval(float(start), end, label, confidence))
        except ValueError:
            raise UserError(
                f"{path}, line {number}: not of the form '<utterance> 1 <start> <duration> <label>'"
            ) from None
    return {utterance: tuple(intervals) for utterance, intervals in found.items()}


def _lines(path: Path) -> list[str]:
    """The lines of a file in a folder of an experiment, which `run.sh` makes."""
    if not Path(path).exists():
        command = Experiment(Path(path).resolve().parents[1]).command
        raise UserError(f"{path}: no such file; make it with {command}")
    return read_lines(path)
