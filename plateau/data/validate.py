"""Find what is wrong with a Kaldi data directory, and repair what can be repaired.

One examination serves both: where it finds a problem it also notes, in the same place, what a
repair would keep. So a repaired directory has no problem left that a repair could mend.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from plateau.config import UserError
from plateau.data import kaldi
from plateau.data.audio import (
    AudioError,
    AudioInfo,
    inspect_audio,
    is_pipe,
    is_too_short,
    no_channel,
    too_short,
)
from plateau.data.examination import Examination, Problem
from plateau.data.kaldi import END_TOLERANCE, REQUIRED
from plateau.data.lines import (
    CTM,
    Row,
    Segment,
    iconv,
    ids_after_key,
    parse,
    raw_lines,
    utf16,
)
from plateau.data.mend import mend_ids, mend_text
from plateau.text import BOM, normalise, odd_characters

PER_UTTERANCE = ("text", "utt2spk", "segments", "utt2dur")
FILES = ("wav.scp", *PER_UTTERANCE, "spk2utt", *CTM.values())
# utt2dur may differ by this from the audio: features cut off part of a window. Seconds.
DURATION_TOLERANCE = 0.1
# A repair ends a segment or a word that goes on for less than this after its recording where the
# recording ends, as Kaldi's extract-segments does. Seconds.
MAX_OVERSHOOT = 0.5
ROUNDING = 1e-6  # seconds that are no more than the rounding of a time
LOUD = 8.0  # times full scale; compressed audio may go a little over it


def validate_data_dir(path: Path, allow_pipes: bool = False) -> list[Problem]:
    """Find all problems of a data directory; an empty list is a valid directory.

    Raises:
        UserError: there is no such directory.
    """
    return examine(path, allow_pipes).problems


def examine(
    path: Path,
    allow_pipes: bool = False,
    known: Mapping[str, AudioInfo | AudioError] | None = None,
    nj: int = 8,
) -> Examination:
    """Look at every line of a data directory and at every recording.

    Args:
        path: of the directory
        allow_pipes: run the shell commands of `wav.scp`
        known: what was found before of entries of `wav.scp`; they are not looked at again
        nj: threads that look at recordings

    Raises:
        UserError: there is no such directory.
    """
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such directory; it should hold {', '.join(REQUIRED)}")
    found = Examination(Path(path), audio=dict(known or {}))
    listed = {name: _read(found, name) for name in ("wav.scp", *PER_UTTERANCE)}
    if missing := [name for name in REQUIRED if not found.has(name)]:
        for name in missing:
            found.note("missing", name, "", "no such file", "make it", fixable=False)
        return found
    _check_spk2utt(found)
    _check_audio(found, listed["wav.scp"], allow_pipes, nj)
    _check_segments(found, listed["wav.scp"])
    _check_lengths_and_channels(found)
    placed = dict(found.segments)
    _keep_complete(found, listed)
    _check_utterances(found)
    for name in CTM.values():
        _check_ctm(found, name, placed)
    if not found.rows["text"]:
        found.note("empty", "text", "", "no utterance is usable", "mend the above", fixable=False)
    return found


def _read(found: Examination, name: str) -> dict[str, str | None]:
    """Read a file of a line per key; return all its keys, with why a line is dropped, or None."""
    rows = found.rows.setdefault(name, {})
    lines = found.lines.setdefault(name, {})
    keys: dict[str, str | None] = {}
    previous = ""
    unsorted = 0
    for line, number, row in _parsed(found, name, keys):
        if row.key < previous:
            unsorted = unsorted or number
        previous = row.key
        if row.key not in keys:
            keys[row.key] = None
            rows[row.key], lines[row.key] = row.value, line
        elif rows.get(row.key) == row.value:
            found.note("duplicate", name, number, f"repeats '{row.key}'", "delete it")
        else:
            keys[row.key] = "two lines that differ"
            rows.pop(row.key, None)
            lines.pop(row.key, None)
            advice = "keep the right line; both are dropped else"
            found.note("conflict", name, number, f"'{row.key}' again, otherwise", advice)
    if unsorted:
        found.note("order", name, unsorted, "not sorted", "sort it with LC_ALL=C sort -k1,1")
    return keys


def _parsed(
    found: Examination, name: str, faulty: dict[str, str | None]
) -> Iterator[tuple[str, int, Row]]:
    """Yield (line, number, row) of each well-formed line; note the others in ``faulty``."""
    if not found.has(name):
        return
    content = (found.path / name).read_bytes()
    if encoding := utf16(content):
        advice = f"convert it: {iconv(found.path / name, encoding)}"
        found.note("encoding", name, "", "UTF-16, not UTF-8", advice)
        content = content.decode(encoding, errors="replace").encode("utf-8")
    for number, line in raw_lines(found.path / name, content):
        if number == 1 and line.startswith(BOM):
            found.note("bom", name, number, "starts with a byte order mark", "delete it")
            line = line.removeprefix(BOM)
        more = ids_after_key(name)
        line, faults = mend_ids(line, None if more is None else 1 + more)
        for fault in faults:
            found.note("id", name, number, fault, "take it out, in all files")
        try:
            row = parse(name, number, line)
        except ValueError as error:
            key, *rest = line.split(None, 1)
            faulty[key.decode("utf-8", errors="replace")] = f"line {number} {error}"
            if (
                str(error).startswith("not UTF-8")
                and rest
                and not _is_utf8(rest[0])
                and _is_utf8(key)
            ):
                new = found.path / f"{name}.utf8"
                advice = (
                    f"convert it from its ENCODING: iconv -f ENCODING -t UTF-8 {name} > {new.name}"
                )
                found.note("encoding", name, number, str(error), advice, fixable=False)
            else:
                found.note("line", name, number, str(error), "mend or delete the line")
        else:
            yield line.strip().decode("utf-8"), number, row


def _is_utf8(part: bytes) -> bool:
    try:
        part.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_audio(
    found: Examination, keys: dict[str, str | None], allow_pipes: bool, nj: int
) -> None:
    audio = found.rows["wav.scp"]
    found.durations = dict.fromkeys(audio)
    looked_at = {key: source for key, source in audio.items() if allow_pipes or not is_pipe(source)}
    for key in audio.keys() - looked_at.keys():
        advice = "allow it with --allow-pipes, or write its audio to a file"
        found.note("pipe", "wav.scp", key, "is a shell command", advice, fixable=False)
    new = sorted(set(looked_at.values()) - found.audio.keys())
    with ThreadPoolExecutor(nj) as pool:  # decoding and the file system leave Python to the others
        results = tqdm(pool.map(_info_or_fault, new), "audio", len(new), leave=False, disable=None)
        found.audio |= zip(new, results, strict=True)
    for key, source in looked_at.items():
        info = found.audio[source]
        if isinstance(info, AudioInfo):
            found.durations[key] = info.duration
            if (info.peak or 0) > LOUD:
                what = f"its samples go to {info.peak:.4g} times full scale"
                advice = "floating point samples should be within -1 and 1: scale them"
                found.warn("level", "wav.scp", key, f"{source}: {what}", advice)
            continue
        what = str(info) if is_pipe(source) else f"{source}: {info}"
        if not info.lost:  # it may be good: leaving out its utterances would be no repair
            found.note("audio", "wav.scp", key, what, "make it readable", fixable=False)
            continue
        del audio[key], found.durations[key]
        keys[key] = str(info)
        thing, option = ("command", "--fix --allow-pipes") if is_pipe(source) else ("file", "--fix")
        advice = f"mend the {thing} or leave out its utterances"
        found.note("audio", "wav.scp", key, what, advice, option=option)


def _info_or_fault(audio: str) -> AudioInfo | AudioError:
    try:
        return inspect_audio(audio)
    except AudioError as error:
        return error


def _check_lengths_and_channels(found: Examination) -> None:
    """Of the utterances whose recording is good."""
    name = "segments" if found.has("segments") else "wav.scp"
    unnamed = {}
    for utterance, segment in found.segments.items():
        source = found.rows["wav.scp"].get(segment.recording_id)
        info = found.audio.get(source)
        if utterance in found.dropped or not isinstance(info, AudioInfo):
            continue
        seconds = (info.duration if segment.end is None else segment.end) - segment.start
        if is_too_short(seconds):
            found.note("short", name, utterance, too_short(seconds), "leave it out")
            found.drop(utterance, too_short(seconds))
        if (segment.channel or 0) >= info.channels:
            what = no_channel(segment.channel, info.channels)
            found.note("channel", name, utterance, what, "mend the number", fixable=False)
        if segment.channel is None and info.channels > 1:
            unnamed[segment.recording_id] = info.channels
    for recording, channels in unnamed.items():
        what = f"has {channels} channels; the first is taken where utterances name none"
        advice = "name them in a fifth field of segments (from 0) if others are meant"
        found.warn("channel", "wav.scp", recording, what, advice)


def _check_segments(found: Examination, recordings: dict[str, str | None]) -> None:
    segments, lines = found.rows["segments"], found.lines["segments"]
    unused = recordings.keys() - {segment.recording_id for segment in segments.values()}
    for key in sorted(unused) if found.has("segments") else ():
        what, advice = "no utterance is in this recording", "delete the line"
        found.note("unused", "wav.scp", key, what, advice, warning=True)
    for utterance, segment in list(segments.items()):
        recording, start, end = segment.recording_id, segment.start, segment.end
        duration = found.durations.get(recording)
        fault = None
        if recording not in recordings:
            fault = f"its recording '{recording}' is not in wav.scp"
        elif end is not None and start >= end:
            fault = f"starts at {start} s, not before its end at {end} s"
        elif duration is not None and (start >= duration or (end or 0) > duration + MAX_OVERSHOOT):
            fault = f"from {start} to {end} s, but its recording has {duration} s"
        elif duration is not None and (end or 0) > duration + ROUNDING:
            what = f"ends {end - duration:.6f} s after its recording"
            found.note("end", "segments", utterance, what, f"end it at {duration} s")
            segments[utterance] = replace(segment, end=duration)
            lines[utterance] = f"{utterance} {kaldi.format_segment(segments[utterance])}"
        if fault:
            found.note("segment", "segments", utterance, fault, "mend or delete the line")
            found.drop(utterance, f"segments: {fault}")
        elif recording not in found.rows["wav.scp"]:
            found.drop(utterance, f"recording '{recording}' is dropped: {recordings[recording]}")


def _keep_complete(found: Examination, listed: dict[str, dict[str, str | None]]) -> None:
    """Keep the utterances that all files have, and the recordings that these need."""
    needed = ("text", "utt2spk", "segments" if found.has("segments") else "wav.scp")
    known = {key: None for name in needed for key in listed[name]}
    for name in needed:
        for key in known:
            if key not in listed[name]:
                advice = "add it there or leave it out everywhere"
                found.note("keys", name, key, "this utterance is missing here", advice)
                found.drop(key, f"missing in {name}")
            elif key not in found.rows[name]:
                found.drop(key, f"{name}: {listed[name][key]}")
    for key in listed["utt2dur"].keys() - known.keys():
        found.note("keys", "utt2dur", key, "no such utterance in text", "delete the line")
    for name in PER_UTTERANCE:
        found.keep(name, known.keys() - found.dropped.keys())
    found.keep("wav.scp", {segment.recording_id for segment in found.segments.values()})


def _check_utterances(found: Examination) -> None:
    for utterance, speaker in found.rows["utt2spk"].items():
        if utterance != speaker and not utterance.startswith(speaker + "-"):
            what = f"does not start with its speaker and a hyphen, '{speaker}-'"
            advice = "rename it if you use Kaldi's own tools, which sort by speaker"
            found.warn("speaker", "utt2spk", utterance, what, advice)
    for utterance, text in found.rows["text"].items():
        text, faults = mend_text(text)
        if faults:
            what = " and ".join(faults)
            found.note("characters", "text", utterance, what, "take it out or write it otherwise")
            found.rows["text"][utterance] = text
            found.lines["text"][utterance] = f"{utterance} {text}".rstrip()
        if not normalise(text):
            advice = "leave it out unless nothing is said there"
            found.warn("transcript", "text", utterance, "empty transcript", advice)
    for utterance, said in found.rows["utt2dur"].items():
        seconds = found.seconds(utterance)
        if seconds is not None and abs(said - seconds) > DURATION_TOLERANCE:
            what = f"says {said} s, the audio has {seconds:.3f} s"
            found.note("duration", "utt2dur", utterance, what, "write the audio's", warning=True)
            found.lines["utt2dur"][utterance] = f"{utterance} {seconds!r}"


def _check_spk2utt(found: Examination) -> None:
    if not found.has("spk2utt"):
        found.note("spk2utt", "spk2utt", "", "no such file", "make it from utt2spk")
        return
    _read(found, "spk2utt")
    rows = found.rows["spk2utt"]
    right = inverse(found)
    for speaker in sorted(rows.keys() | right.keys()):
        if " ".join(rows.get(speaker, ())) != right.get(speaker, ""):
            what = "its utterances are not those of utt2spk, sorted"
            found.note("spk2utt", "spk2utt", speaker, what, "make it from utt2spk")


def inverse(found: Examination) -> dict[str, str]:
    """What `spk2utt` should say."""
    return kaldi.spk2utt(found.rows["utt2spk"].items())


def _check_ctm(found: Examination, name: str, placed: dict[str, Segment]) -> None:
    """Check the times of a ctm, and its words; ``placed`` are the segments of all utterances."""
    owner = kaldi.owners(placed)
    labels = defaultdict(list)
    kept = []
    previous = ("", 0.0)
    unsorted = 0
    for line, number, row in _parsed(found, name, {}):
        end = row.value.start + row.value.duration
        if (row.key, row.value.start) < previous:
            unsorted = unsorted or number
        previous = (row.key, row.value.start)
        duration = found.durations.get(row.key)
        label, faults = _mend_label(name, row.value.label)
        for fault in faults:
            what = f"'{normalise(row.value.label)}' {fault}"
            found.note("characters", name, number, what, "take it out or write it otherwise")
        if faults and not label:
            continue
        line = _with_field(line, 4, label) if faults else line
        if duration is not None and end > duration + END_TOLERANCE:
            what = f"'{label}' ends at {end} s, its recording has {duration} s"
            found.note("interval", name, number, what, "mend or delete the line")
            if end > duration + MAX_OVERSHOOT or row.value.start >= duration:
                continue
            row = replace(row, value=replace(row.value, duration=duration - row.value.start))
            line = _with_field(line, 3, repr(round(row.value.duration, 8)))
        utterance = owner(row)
        if utterance is None:
            what = f"'{label}' is in no utterance of recording '{row.key}'"
            found.note("outside", name, number, what, "delete the line", warning=True)
        elif utterance not in found.dropped:
            kept.append((*previous, line))
            labels[utterance].append((row.value.start, normalise(label)))
    if unsorted:
        advice = "sort it by recording, then start"
        found.note("order", name, unsorted, "not sorted by recording and start", advice)
    found.ctms[name] = [line for *_, line in sorted(kept, key=lambda item: item[:2])]
    for utterance, timed in labels.items() if name == CTM["words"] else ():
        words = [label for _, label in sorted(timed, key=lambda item: item[0])]
        if words != normalise(found.rows["text"][utterance]).split():
            what, advice = "its words are not those of text", "mend the one that is wrong"
            found.warn("words", name, utterance, what, advice)


def _mend_label(name: str, label: str) -> tuple[str, list[str]]:
    """A word of a ctm is mended as one of a text, a phone only where it has odd characters."""
    if name != CTM["words"] and not odd_characters(label):
        return label, []
    mended, faults = mend_text(label)
    return "_".join(mended.split()), faults


def _with_field(line: str, index: int, value: str) -> str:
    """The line with another value of one field; what parts the fields stays."""
    fields = re.split(r"([ \t\r\v\f]+)", line)
    fields[2 * index] = value
    return "".join(fields)
