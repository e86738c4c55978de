"""Kaldi data directories: `wav.scp text utt2spk spk2utt [segments utt2dur ctm phones.ctm]`.

A line is a key and its value, parted by ASCII white space as Kaldi parts them; files are UTF-8 and
sorted by key in the C locale, which is also how Python sorts strings.
The format: https://kaldi-asr.org/doc/data_prep.html
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from plateau.config import UserError
from plateau.data.audio import is_pipe
from plateau.data.lines import CTM, Interval, Row, Segment, Value, parse, raw_lines
from plateau.io import write_text
from plateau.text import name_of, normalise, odd_characters

REQUIRED = ("wav.scp", "text", "utt2spk")
# A segment may end this much after its recording (rounded times); it is then clipped. Seconds.
END_TOLERANCE = 0.01


@dataclass(frozen=True)
class Utterance:
    """What was said, by whom, and where to hear it.

    Args:
        id: unique in its directory
        speaker: ``id`` is equal to it or starts with it and "-"
        text: the transcript, words parted by single spaces
        audio: path of the recording, or a shell pipe that ends in "|"
        recording_id: None where the recording is the utterance
        start: of the segment, seconds from the start of the recording
        end: of the segment, seconds; None: to the end of the recording
        words: timed words, in order
        phones: timed phones, in order
        channel: of the recording, from 0; None: its only one, or the first
    """

    id: str
    speaker: str
    text: str
    audio: str
    recording_id: str | None = None
    start: float = 0.0
    end: float | None = None
    words: tuple[Interval, ...] = ()
    phones: tuple[Interval, ...] = ()
    channel: int | None = None

    @property
    def segment(self) -> Segment:
        """Where it lies in its recording."""
        recording = self.id if self.recording_id is None else self.recording_id
        return Segment(recording, self.start, self.end, self.channel)


def read_table(path: Path, kind: str = "") -> dict[str, Value]:
    """Read a file of one line per key.

    Args:
        path: of the file.
        kind: which file of a data directory it is like, e.g. text; without it, its name says that.

    Raises:
        UserError: names the file and the line that is malformed or repeats a key.
    """
    table: dict[str, Value] = {}
    for row in _rows(path, kind or path.name):
        if row.key in table:
            raise _error(path, row.number, f"'{row.key}' is there for the second time")
        table[row.key] = row.value
    return table


def _rows(path: Path, kind: str) -> Iterator[Row]:
    try:
        for number, line in raw_lines(path):
            try:
                yield parse(kind, number, line)
            except ValueError as error:
                raise _error(path, number, str(error)) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _error(path: Path, number: int, what: str) -> UserError:
    advice = f"see all problems: python local/validate_data_dir.py {path.parent} [--fix]"
    return UserError(f"{path}:{number}: {what}\n{advice}")


def read_data_dir(path: Path, allow_pipes: bool = False) -> list[Utterance]:
    """Read a data directory; utterances come sorted by id.

    A ctm's intervals go to the utterance whose segment holds their centre (of several, the one
    that starts last); those in no segment are left out.

    Raises:
        UserError: names the file and line, or the utterance, of the first mistake.
    """
    path = Path(path)
    audio, texts, speakers = (read_table(path / name) for name in REQUIRED)
    if not texts:
        raise UserError(f"{path / 'text'}: empty; it needs a line for each utterance")
    for recording, source in audio.items():
        if is_pipe(source) and not allow_pipes:
            raise UserError(
                f"{path / 'wav.scp'}: '{recording}' is a shell command; "
                "allow such commands to run with --allow-pipes, or write its audio to a file"
            )
    segmented = (path / "segments").exists()
    segments = read_table(path / "segments") if segmented else {u: Segment(u) for u in texts}
    for name, table in (("utt2spk", speakers), ("segments", segments)):
        if differing := sorted(table.keys() ^ texts.keys()):
            raise UserError(
                f"{path}: '{differing[0]}' is in only one of text and {name} "
                f"({len(differing)} such); leave such out with "
                f"python local/validate_data_dir.py --fix {path}"
            )
    for utterance, segment in segments.items():
        if segment.recording_id not in audio:
            raise UserError(
                f"{path / 'wav.scp'}: no recording '{segment.recording_id}', "
                f"which utterance '{utterance}' needs"
            )
    times = {field: assign(path / name, segments) for field, name in CTM.items()}
    return [
        Utterance(
            id=utterance,
            speaker=speakers[utterance],
            text=texts[utterance],
            audio=audio[segments[utterance].recording_id],
            recording_id=segments[utterance].recording_id if segmented else None,
            start=segments[utterance].start,
            end=segments[utterance].end,
            channel=segments[utterance].channel,
            **{field: tuple(found.get(utterance, ())) for field, found in times.items()},
        )
        for utterance in sorted(texts)
    ]


def assign(ctm: Path, segments: dict[str, Segment]) -> dict[str, list[Interval]]:
    """Read a ctm, if it is there: the intervals of each utterance in order of time."""
    found: dict[str, list[Interval]] = defaultdict(list)
    if ctm.exists():
        owner = owners(segments)
        for row in sorted(_rows(ctm, ctm.name), key=lambda row: row.value.start):
            utterance = owner(row)
            if utterance is not None:
                found[utterance].append(row.value)
    return found


def owners(segments: dict[str, Segment]) -> Callable[[Row], str | None]:
    """Return a function from a ctm's row to the id of the utterance that holds it, or None.

    Where utterances of a recording name channels, a row goes to one that is on its channel.
    """
    of_recording: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for utterance, segment in segments.items():
        of_recording[segment.recording_id].append((segment.start, utterance))
    for candidates in of_recording.values():
        candidates.sort()

    def owner(row: Row) -> str | None:
        candidates = of_recording.get(row.key, [])
        centre = row.value.start + row.value.duration / 2
        last = bisect_right(candidates, centre, key=lambda candidate: candidate[0])
        for _, utterance in reversed(candidates[:last]):
            segment = segments[utterance]
            if segment.channel in (None, row.channel) and segment.holds(row.value):
                return utterance
        return None

    return owner


def read_durations(path: Path) -> dict[str, float]:
    """Durations of utterances in seconds from `utt2dur`; empty where there is none."""
    return read_table(path / "utt2dur") if (path / "utt2dur").exists() else {}


def write_data_dir(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a data directory, each file atomically; texts are normalised.

    `segments` is written if any utterance has a recording id or is a piece of its recording, and
    a ctm if any utterance has intervals; such files of an earlier time are removed where not.

    Raises:
        UserError: names the utterance that cannot be written so that reading gives it back.
    """
    path = Path(path)
    utterances = sorted(utterances, key=lambda u: u.id)
    segmented = any(u.segment != Segment(u.id) or u.recording_id is not None for u in utterances)
    audio: dict[str, str] = {}
    for before, utterance in zip([None, *utterances], utterances, strict=False):
        if before is not None and before.id == utterance.id:
            raise UserError(f"utterance '{utterance.id}': two utterances have this id")
        try:
            _check(utterance)
        except ValueError as error:
            raise UserError(f"utterance '{utterance.id}': {error}") from None
        recording = utterance.segment.recording_id
        if audio.setdefault(recording, utterance.audio) != utterance.audio:
            raise UserError(
                f"utterance '{utterance.id}': recording '{recording}' has two audio files, "
                f"{audio[recording]} and {utterance.audio}; give each its own recording id"
            )
    if not utterances:
        raise UserError(f"{path}: no utterances to write")
    _write(path / "wav.scp", sorted(audio.items()))
    _write(path / "text", ((u.id, normalise(u.text)) for u in utterances))
    _write(path / "utt2spk", ((u.id, u.speaker) for u in utterances))
    _write(path / "spk2utt", spk2utt((u.id, u.speaker) for u in utterances).items())
    optional = {"segments": ()}
    if segmented:
        optional["segments"] = ((u.id, format_segment(u.segment)) for u in utterances)
    for field, name in CTM.items():
        timed = [(u.segment, interval) for u in utterances for interval in getattr(u, field)]
        timed.sort(key=lambda item: (item[0].recording_id, item[1].start))
        optional[name] = [(s.recording_id, format_interval(i, s.channel)) for s, i in timed]
    for name, rows in optional.items():
        if rows:
            _write(path / name, rows)
        else:
            (path / name).unlink(missing_ok=True)


def _check(utterance: Utterance) -> None:
    """Raise ValueError unless reading would give this utterance back."""
    u = utterance
    timed = (*u.words, *u.phones)
    for field in (u.id, u.speaker, u.segment.recording_id, *(i.label for i in timed)):
        if not field or field.split() != [field]:
            raise ValueError(f"'{field}' is empty or has white space; ids and labels may not")
    for field in (u.id, u.speaker, u.segment.recording_id):
        if odd := odd_characters(field):
            raise ValueError(f"'{field}' has {name_of(odd[0])}; ids may not")
    if not u.audio or u.audio.strip() != u.audio or "\n" in u.audio:
        raise ValueError(f"its audio '{u.audio}' is empty or has outer spaces or line breaks")
    if u.id != u.speaker and not u.id.startswith(u.speaker + "-"):
        raise ValueError(f"its id must start with '{u.speaker}-', its speaker (Kaldi's sorting)")
    if u.channel is not None and not 0 <= u.channel < 10000:
        raise ValueError(f"its channel {u.channel} is not one, which count from 0")
    if not 0 <= u.start < (math.inf if u.end is None else u.end):
        raise ValueError(f"its segment from {u.start} to {u.end} s is empty or negative")
    for interval in timed:
        if not (0 <= interval.start < math.inf and 0 <= interval.duration < math.inf):
            raise ValueError(f"{interval} has no valid time")
        if not u.segment.holds(interval):
            raise ValueError(f"the centre of {interval} is outside of its segment")
    written = "".join((u.id, u.speaker, u.text, u.audio, *(i.label for i in timed)))
    written.encode("utf-8")  # lone surrogates: ValueError
    if "\0" in written:
        raise ValueError("its text, audio or a label has a NUL character; take it out")


def spk2utt(utt2spk: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Utterances of each speaker, both sorted, as the lines of `spk2utt` list them."""
    utterances: dict[str, list[str]] = defaultdict(list)
    for utterance, speaker in sorted(utt2spk):
        utterances[speaker].append(utterance)
    return {speaker: " ".join(utterances[speaker]) for speaker in sorted(utterances)}


def format_segment(segment: Segment) -> str:
    """What `segments` says of an utterance; times in full precision."""
    end = "-1" if segment.end is None else repr(float(segment.end))
    channel = "" if segment.channel is None else f" {segment.channel}"
    return f"{segment.recording_id} {float(segment.start)!r} {end}{channel}"


def format_interval(interval: Interval, channel: int | None = None) -> str:
    """What a ctm says of an interval after the recording's id; its channel there counts from 1."""
    times = f"{float(interval.start)!r} {float(interval.duration)!r}"
    return f"{(channel or 0) + 1} {times} {interval.label}"


def _write(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    write_text(path, "".join(f"{key} {value}".rstrip() + "\n" for key, value in rows))


def clipped(segment: Segment, duration: float) -> Segment:
    """The segment with its end moved back to the recording's where it is slightly after it."""
    if segment.end is not None and duration < segment.end <= duration + END_TOLERANCE:
        return replace(segment, end=duration)
    return segment
