"""Lines of the files of a Kaldi data directory, and what they say."""

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plateau.config import UserError
from plateau.text import BOM, name_of, odd_characters, without_odd_characters

CTM = {"words": "ctm", "phones": "phones.ctm"}  # field of `Utterance` → file


@dataclass(frozen=True)
class Interval:
    """A timed label.

    Args:
        start: seconds from the start of the recording
        duration: seconds
        label: a word or a phone, without white space
    """

    start: float
    duration: float
    label: str


@dataclass(frozen=True)
class Segment:
    """A piece of a recording.

    Args:
        recording_id: where it lies
        start: seconds
        end: seconds; None: the end of the recording
        channel: counted from 0; None: none is named, and the first is taken
    """

    recording_id: str
    start: float = 0.0
    end: float | None = None
    channel: int | None = None

    def holds(self, interval: Interval) -> bool:
        """Whether the centre of ``interval`` is in the segment."""
        centre = interval.start + interval.duration / 2
        return self.start <= centre and (self.end is None or centre < self.end)


Value = str | tuple[str, ...] | float | Segment | Interval


@dataclass(frozen=True)
class Row:
    """One parsed line: its number (from 1), its key and what it says of it.

    ``channel`` is that of a ctm's row, from 0; None where it is neither a number nor a letter.
    """

    number: int
    key: str
    value: Value
    channel: int | None = None


def utf16(content: bytes) -> str | None:
    """The encoding of a file that is UTF-16: by its byte order mark, or since it has many NULs."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    start = content[:1000]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if not start or max(even, odd) * 4 < len(start):
        return None
    return "UTF-16BE" if even > odd else "UTF-16LE"


def iconv(path: Path, encoding: str) -> str:
    """The command that makes a file UTF-8."""
    old, new = (shlex.quote(str(p)) for p in (path, path.with_name(f"{path.name}.utf8")))
    return f"iconv -f {encoding} -t UTF-8 {old} > {new} && mv {new} {old}"


def raw_lines(path: Path, content: bytes | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines of a file that are not blank (nor comments, in a ctm).

    Args:
        path: of the file
        content: what to take in place of what is in the file

    Raises:
        UserError: it is UTF-16.
    """
    if content is None:
        content = path.read_bytes()
        if encoding := utf16(content):
            raise UserError(f"{path}: UTF-16, not UTF-8; convert it:\n{iconv(path, encoding)}")
    comment = b";;" if path.name in CTM.values() else None
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip() and not (comment and line.startswith(comment)):
            yield number, line


def parse(name: str, number: int, line: bytes) -> Row:
    """Parse one line of the file called ``name``.

    Raises:
        ValueError: what is wrong with the line.
    """
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte 0x{line[error.start]:02x})") from None
    if line.startswith(BOM):
        raise ValueError("starts with a byte order mark, which would be part of the first id")
    limit = 1 if name in ("wav.scp", "text") else -1
    key, *fields = (field.decode("utf-8") for field in line.strip().split(None, limit))
    for field in (key, *fields[: ids_after_key(name)]):
        if odd := odd_characters(field):
            shown = without_odd_characters(field)
            raise ValueError(f"id '{shown}' has {name_of(odd[0])}; take it out, in all files")
    if b"\0" in line and name != "text":  # in a text it is an odd character
        raise ValueError("has a NUL character; take it out")
    if limit == 1:
        if name == "wav.scp" and not fields:
            raise ValueError("has no audio after the recording id")
        return Row(number, key, fields[0] if fields else "")
    channel = channel_of(fields[0]) if name in CTM.values() and fields else None
    return Row(number, key, _value(name, fields), channel)


def ids_after_key(name: str) -> int | None:
    """How many fields after a line's first are ids, too; None: all."""
    return {"utt2spk": 1, "segments": 1, "spk2utt": None}.get(name, 0)


def channel_of(field: str) -> int | None:
    """A ctm's channel as it is counted from 0: 1 and A are the first; None if it is neither."""
    if re.fullmatch("[1-9][0-9]{0,3}", field):
        return int(field) - 1
    return ord(field.upper()) - ord("A") if re.fullmatch("[A-Za-z]", field) else None


def _value(name: str, fields: list[str]) -> Value:
    """Value of a line of ``name`` from the fields after the key."""
    match name, fields:
        case "utt2spk", [speaker]:
            return speaker
        case "spk2utt", [_, *_]:
            return tuple(fields)
        case "utt2dur", [duration]:
            return _seconds(duration)
        case "segments", [recording, start, end, *channel] if len(channel) < 2:
            return Segment(recording, _seconds(start), _end(end), *map(_channel, channel))
        case (("ctm" | "phones.ctm"), [_, start, duration, label, *more]) if len(more) < 4:
            return Interval(_seconds(start), _seconds(duration), label)
    wanted = {
        "utt2spk": "2: utterance speaker",
        "spk2utt": "at least 2: speaker utterances",
        "utt2dur": "2: utterance seconds",
        "segments": "4 or 5: utterance recording start end [channel]",
    }.get(name, "5 to 8: recording channel start duration label [confidence [type [speaker]]]")
    raise ValueError(f"has {len(fields) + 1} fields, not {wanted}")


def _seconds(field: str) -> float:
    try:
        seconds = float(field)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"'{field}' is not a time in seconds")
    return seconds


def _end(field: str) -> float | None:
    """Kaldi: an end of -1 means the end of the recording."""
    return None if re.fullmatch(r"-0*1(\.0*)?(e[+-]?0+)?", field, re.I) else _seconds(field)


def _channel(field: str) -> int | None:
    """Kaldi: channels count from 0, and -1 means none."""
    if not re.fullmatch("-1|[0-9]{1,4}", field):
        raise ValueError(f"has 5 fields, and '{field}' is not a channel (0, 1, … or -1 for none)")
    return None if field == "-1" else int(field)
