"""Segments of recordings with their text: the stm of NIST sclite, and utterances as such.

A line is ``<recording> <channel> <speaker> <start> <end> [<label>] <text>``. sclite wants lines in
the order of recording, channel and start. It skips those that begin with ``;;``, takes a word in
front of the text that begins with ``<`` for a label, as in ``<o,f0,male>``, and leaves out segments
whose text holds IGNORE_TIME_SEGMENT_IN_SCORING, in any case of letters.

A line has no place for an utterance's id, and `for_sclite` changes some characters. So where they
are needed, comments before a line tell what Kaldi has: ``;; kaldi utterance ID``, and so
``recording``, ``speaker`` and ``text``. The last three count as long as the line says the same in
sclite's forms.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plateau.config import UserError
from plateau.data.kaldi import Utterance
from plateau.data.lines import channel_of
from plateau.decoding.files import (
    IGNORED,
    check_fields,
    for_sclite,
    one_for_sclite,
    whole_milliseconds,
)
from plateau.io import write_text
from plateau.text import name_of, odd_characters, read_lines

LONGEST = 1e9  # seconds: thirty years; more has no milliseconds
CHANNELS = 9999  # that `channel_of` reads
_TIME = r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
_KALDI = ";; kaldi"
_OWN = ("recording", "speaker", "text")  # fields that `for_sclite` changes


@dataclass(frozen=True)
class Segment:
    """A line of an stm.

    Args:
        recording: its id
        speaker: who says it
        start: seconds
        end: seconds
        text: what is said, words parted by spaces
        channel: of the recording, from 0; in the file from 1
        label: with its brackets, as in ``<o,f0,male>``; "" for none
        utterance: the id that Kaldi has for it; "" where nobody will ask for it
        ignored: sclite leaves it out
    """

    recording: str
    speaker: str
    start: float
    end: float
    text: str
    channel: int = 0
    label: str = ""
    utterance: str = ""
    ignored: bool = False


def write_stm(path: Path, segments: Iterable[Segment]) -> None:
    """Write an stm for sclite, in its order; times are cut to whole milliseconds.

    Raises:
        UserError: an id, a text or a time cannot be in such a line.
    """
    segments = sorted(segments, key=lambda s: (for_sclite(s.recording), s.channel, s.start))
    if same := one_for_sclite(segment.recording for segment in segments):
        raise UserError(f"{path}: not written: {' and '.join(same)} would be one id for sclite")
    for segment in segments:
        _check(path, segment)
    lines = []
    for segment, implied in zip(segments, implied_ids(segments), strict=True):
        if segment.utterance:
            told = [n for n in _OWN if for_sclite(getattr(segment, n)) != getattr(segment, n)]
            told += ["utterance"] * (segment.utterance != implied)
            lines += [f"{_KALDI} {name} {getattr(segment, name)}\n" for name in told]
        lines.append(_line(segment))
    write_text(path, "".join(lines))


def _check(path: Path, segment: Segment) -> None:
    name = segment.utterance or segment.recording
    check_fields(path, segment.recording, segment.speaker, name)
    if odd := odd_characters(segment.recording + segment.speaker + name):
        raise UserError(f"{path}: not written: an id of {name} has {name_of(odd[0])}")
    times = segment.start, segment.end
    if not all(0 <= time < LONGEST for time in times):
        raise UserError(f"{path}: not written: {name} has a time that is none, {list(times)} s")
    if not segment.ignored and not _lasts(*times):
        raise UserError(f"{path}: not written: {name} does not last a millisecond, {list(times)} s")
    if not 0 <= segment.channel < CHANNELS:
        raise UserError(f"{path}: not written: {name} is on channel {segment.channel}")
    if "\n" in segment.text or segment.text != segment.text.strip():
        raise UserError(f"{path}: not written: the text of {name} is not one line of words")
    if segment.label and not re.fullmatch(r"<\S*>", segment.label):
        raise UserError(f"{path}: not written: {name} has the label {segment.label!r}")


def _lasts(start: float, end: float) -> bool:
    return whole_milliseconds(start) < whole_milliseconds(end)


def _line(segment: Segment) -> str:
    text = IGNORED.upper() if segment.ignored else for_sclite(segment.text)
    # A text that begins with <, as <unk> does, would be taken for a label: <o> is that of what has
    # no other.
    label = segment.label or ("<o>" if text.startswith("<") else "")
    times = (f"{whole_milliseconds(time) / 1000:.3f}" for time in (segment.start, segment.end))
    ids = for_sclite(segment.recording), f"{segment.channel + 1}", for_sclite(segment.speaker)
    return " ".join([*ids, *times, *filter(None, [label, text])]) + "\n"


def implied_ids(segments: Sequence[Segment]) -> list[str]:
    """Ids for segments that tell none: the speaker goes first, as Kaldi's sorting needs it.

    The only segment of a recording, from its start on, has the recording's id; others also have
    their channel, where that is not the first, and start and end in milliseconds.
    """
    number = Counter(segment.recording for segment in segments if not segment.ignored)
    ids = []
    for s in segments:
        start, end = (whole_milliseconds(time) for time in (s.start, s.end))
        channel = f"-{s.channel + 1}" if s.channel else ""
        place = f"{channel}-{start:07}-{end:07}" if start or number[s.recording] > 1 else ""
        ids.append(with_speaker(f"{s.recording}{place}", s.speaker))
    return ids


def with_speaker(utterance: str, speaker: str) -> str:
    """The id, after that of its speaker unless it begins with it."""
    starts = utterance == speaker or utterance.startswith(f"{speaker}-")
    return utterance if starts else f"{speaker}-{utterance}"


def read_stm(path: Path) -> list[Segment]:
    """Read an stm; each segment that is not ignored has an ``utterance`` that no other has.

    Raises:
        UserError: names the file, and the line that is not of the form.
    """
    found: dict[int, Segment] = {}  # by number of the line
    own: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(";;"):
            if match := re.match(rf"{_KALDI} (utterance|{'|'.join(_OWN)}) (.+)", line):
                own[match[1]] = match[2]
        elif line.strip(" \t\r"):
            try:
                found[number] = _parse(line, own)
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
            own = {}
    first: dict[str, int] = {}  # line of an utterance
    segments = []
    for (number, segment), id in zip(found.items(), implied_ids(list(found.values())), strict=True):
        id = segment.utterance or id
        if not segment.ignored and first.setdefault(id, number) != number:
            raise UserError(f"{path}:{number}: the utterance '{id}' is in line {first[id]}, too")
        segments.append(replace(segment, utterance=id))
    return segments


def _parse(line: str, own: Mapping[str, str]) -> Segment:
    """Parse a line.

    Args:
        line: without its end
        own: what Kaldi has in place of what sclite reads, by name of the field

    Raises:
        ValueError: what is wrong with it.
    """
    fields = re.split(r"[ \t]+", line.strip(" \t\r"), maxsplit=5)
    if len(fields) < 5:
        what = "<recording> <channel> <speaker> <start> <end> [<label>] <text>"
        raise ValueError(f"has {len(fields)} fields, not the form '{what}'")
    recording, channel, speaker, *times = fields[:5]
    text, label = "".join(fields[5:]), ""
    for id in (recording, speaker, own.get("utterance", "")):
        if odd := odd_characters(id):
            raise ValueError(f"an id has {name_of(odd[0])}; take it out")
    if " " in own.get("utterance", ""):
        raise ValueError(f"the utterance '{own['utterance']}' has a space; ids may not")
    if recording.startswith(";"):
        raise ValueError("begins with a semicolon; a comment begins with two")
    if channel_of(channel) is None:
        raise ValueError(f"'{channel}' is not a channel: 1, 2, … or A, B, …")
    for time in times:
        if not re.fullmatch(_TIME, time, re.ASCII | re.IGNORECASE) or not float(time) < LONGEST:
            raise ValueError(f"'{time}' is not a time in seconds")
    start, end = map(float, times)
    if text.startswith("<"):
        label, *rest = re.split(r"[ \t]+", text, maxsplit=1)
        text = "".join(rest)
        if not label.endswith(">"):
            raise ValueError(
                f"sclite takes '{label}' for a label: write labels without spaces, as in <o,f0>, "
                "and <o> before a text that begins with <"
            )
    ignored = IGNORED in text.lower()
    if not ignored and not _lasts(start, end):
        raise ValueError(f"from {start} to {end} s; a segment lasts at least a millisecond")
    said = {"recording": recording, "speaker": speaker, "text": text}
    for name in said.keys() & own.keys():
        if for_sclite(own[name]) == said[name]:
            said[name] = own[name]
    return Segment(
        **said,
        start=start,
        end=end,
        channel=channel_of(channel),
        label=label,
        utterance=own.get("utterance", ""),
        ignored=ignored,
    )


def to_utterances(segments: Iterable[Segment], audio: Mapping[str, str]) -> list[Utterance]:
    """Utterances of a Kaldi data directory; those that sclite leaves out are left out.

    Ids that do not start with their speaker get it as prefix. Channels are named in recordings of
    which others than the first are used. Alternatives and optional words, ``{ a / b }`` and
    ``(a)``, stay in the text as they are.

    Args:
        segments: of `read_stm`
        audio: entries of `wav.scp`, by recording

    Raises:
        UserError: a recording has no audio.
    """
    segments = [segment for segment in segments if not segment.ignored]
    lacking = Counter(s.recording for s in segments if s.recording not in audio)
    if lacking:
        recording, number = next(iter(lacking.items()))
        what = f"'{recording}', which has {number} segments"
        raise UserError(f"{len(lacking)} recordings without audio, such as {what}")
    named = {segment.recording for segment in segments if segment.channel}
    return [
        Utterance(
            with_speaker(s.utterance, s.speaker),
            s.speaker,
            s.text,
            audio[s.recording],
            s.recording,
            s.start,
            s.end,
            channel=s.channel if s.recording in named else None,
        )
        for s in segments
    ]
