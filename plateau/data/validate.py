"""Find what is wrong with a Kaldi data directory, and repair what can be repaired.

One examination serves both: where it finds a problem it also notes, in the same place, what a
repair would keep. So a repaired directory has no problem left that a repair could mend.
"""

import shutil
from collections import defaultdict
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from plateau.config import UserError
from plateau.data import kaldi
from plateau.data.audio import inspect_audio
from plateau.data.kaldi import CTM, END_TOLERANCE, REQUIRED, Segment
from plateau.io import write_text
from plateau.text import normalise

PER_UTTERANCE = ("text", "utt2spk", "segments", "utt2dur")
FILES = ("wav.scp", *PER_UTTERANCE, "spk2utt", *CTM.values())
# utt2dur may differ by this from the audio: features cut off part of a window. Seconds.
DURATION_TOLERANCE = 0.1
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Problem:
    """Something wrong; as a string, one line.

    Args:
        kind: short name that problems of one sort share
        path: of the file
        where: number of the line, or id of the utterance, recording or speaker; or empty
        what: what is wrong
        advice: what to do
        fixable: `fix_data_dir` mends it
        warning: the directory works as it is
    """

    kind: str
    path: Path
    where: str
    what: str
    advice: str
    fixable: bool = True
    warning: bool = False

    @property
    def finding(self) -> str:
        """Where it is and what is wrong."""
        place = f"{self.path}:{self.where}" if self.where else str(self.path)
        return " ".join(f"{place}: {'warning: ' * self.warning}{self.what}".split())

    def __str__(self) -> str:
        return f"{self.finding}; {self.advice}{' (--fix does)' * self.fixable}"


@dataclass
class Examination:
    """A data directory as a repair would leave it, and the problems on the way there.

    Args:
        path: of the directory
        problems: all that was found
        dropped: utterances that a repair leaves out, and why
        lines: text of each line that is kept, by file, then key
        rows: the same lines parsed
        ctms: lines of each ctm that are kept
        durations: seconds of each good recording; None for a pipe
        backup: where a repair left the files as they were; None if it changed nothing
    """

    path: Path
    problems: list[Problem] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    lines: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, dict[str, kaldi.Value]] = field(default_factory=dict)
    ctms: dict[str, list[str]] = field(default_factory=dict)
    durations: dict[str, float | None] = field(default_factory=dict)
    backup: Path | None = None

    def note(self, kind: str, name: str, where: object, what: str, advice: str, **flags) -> None:
        """Add a problem with the file ``name``."""
        self.problems.append(Problem(kind, self.path / name, str(where), what, advice, **flags))

    def warn(self, *problem: str) -> None:
        """Add a problem with which the directory works, and which only its owner can mend."""
        self.note(*problem, fixable=False, warning=True)

    def has(self, name: str) -> bool:
        """Whether the directory has this file."""
        return (self.path / name).is_file()

    def drop(self, utterance: str, why: str) -> None:
        """Leave out an utterance; the first reason stands."""
        self.dropped.setdefault(utterance, why)

    def keep(self, name: str, keys: Container[str]) -> None:
        """Keep only these keys of a file."""
        for table in (self.rows[name], self.lines[name]):
            for key in [key for key in table if key not in keys]:
                del table[key]

    @property
    def segments(self) -> dict[str, Segment]:
        """Where the utterances that are kept lie."""
        if self.has("segments"):
            return self.rows["segments"]
        return {utterance: Segment(utterance) for utterance in self.rows["text"]}

    def seconds(self, utterance: str) -> float | None:
        """Duration of an utterance, None if it is a pipe's."""
        segment = self.segments[utterance]
        end = self.durations[segment.recording_id] if segment.end is None else segment.end
        return None if end is None else end - segment.start

    def summary(self) -> str:
        """Counts of utterances, speakers and hours."""
        speakers = len(set(self.rows["utt2spk"].values()))
        seconds = [self.seconds(utterance) for utterance in self.rows["text"]]
        hours = sum(s for s in seconds if s is not None) / 3600
        piped = " besides pipes" if None in seconds else ""
        return f"{len(seconds)} utterances, {speakers} speakers, {hours:.2f} hours{piped}"


def validate_data_dir(path: Path, allow_pipes: bool = False) -> list[Problem]:
    """Find all problems of a data directory; an empty list is a valid directory.

    Raises:
        UserError: there is no such directory.
    """
    return examine(path, allow_pipes).problems


def examine(path: Path, allow_pipes: bool = False) -> Examination:
    """Look at every line of a data directory and at the header of every recording.

    Raises:
        UserError: there is no such directory.
    """
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such directory; it should hold {', '.join(REQUIRED)}")
    found = Examination(Path(path))
    listed = {name: _read(found, name) for name in ("wav.scp", *PER_UTTERANCE)}
    if missing := [name for name in REQUIRED if not found.has(name)]:
        for name in missing:
            found.note("missing", name, "", "no such file", "make it", fixable=False)
        return found
    _check_spk2utt(found)
    _check_audio(found, listed["wav.scp"], allow_pipes)
    _check_segments(found, listed["wav.scp"])
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


def _parsed(found: Examination, name: str, faulty: dict[str, str | None]):
    """Yield (line, number, row) of each well-formed line; note the others in ``faulty``."""
    if not found.has(name):
        return
    for number, line in kaldi.raw_lines(found.path / name):
        if number == 1 and line.startswith(_BOM):
            found.note("bom", name, number, "starts with a byte order mark", "delete it")
            line = line.removeprefix(_BOM)
        try:
            row = kaldi.parse(name, number, line)
        except ValueError as error:
            found.note("line", name, number, str(error), "mend or delete the line")
            key = line.split()[0].decode("utf-8", errors="replace")
            faulty[key] = f"line {number} {error}"
        else:
            yield line.strip().decode("utf-8"), number, row


def _check_audio(found: Examination, keys: dict[str, str | None], allow_pipes: bool) -> None:
    audio = found.rows["wav.scp"]
    files = {key: source for key, source in audio.items() if not kaldi.is_pipe(source)}
    found.durations = dict.fromkeys(audio)
    for key in audio.keys() - files.keys():
        if not allow_pipes:
            advice = "allow it with --allow-pipes, or write its audio to a file"
            found.note("pipe", "wav.scp", key, "is a shell command", advice, fixable=False)
    with ThreadPoolExecutor(8) as pool:  # much of the time goes into waiting for the file system
        results = pool.map(_duration_or_fault, files.values())
        results = tqdm(results, "audio", len(files), leave=False, disable=None)
        for (key, source), result in zip(files.items(), results, strict=True):
            if isinstance(result, float):
                found.durations[key] = result
            else:
                del audio[key], found.durations[key]
                keys[key] = result
                advice = "mend the file or leave out its utterances"
                found.note("audio", "wav.scp", key, f"{source}: {result}", advice)


def _duration_or_fault(path: str) -> float | str:
    try:
        return inspect_audio(path).duration
    except ValueError as error:
        return str(error)


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
        elif duration is not None and (start >= duration or (end or 0) > duration + END_TOLERANCE):
            fault = f"from {start} to {end} s, but its recording has {duration} s"
        elif duration is not None and (end or 0) > duration:
            what = f"ends {end - duration:.6f} s after its recording"
            found.note("end", "segments", utterance, what, f"end it at {duration} s")
            segments[utterance] = kaldi.clipped(segment, duration)
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
    inverse = _inverse(found)
    for speaker in sorted(rows.keys() | inverse.keys()):
        if " ".join(rows.get(speaker, ())) != inverse.get(speaker, ""):
            what = "its utterances are not those of utt2spk, sorted"
            found.note("spk2utt", "spk2utt", speaker, what, "make it from utt2spk")


def _inverse(found: Examination) -> dict[str, str]:
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
        if duration is not None and end > duration + END_TOLERANCE:
            what = f"'{row.value.label}' ends at {end} s, its recording has {duration} s"
            found.note("interval", name, number, what, "mend or delete the line")
        elif (utterance := owner(row)) is None:
            what = f"'{row.value.label}' is in no utterance of recording '{row.key}'"
            found.note("outside", name, number, what, "delete the line", warning=True)
        elif utterance not in found.dropped:
            kept.append((*previous, line))
            labels[utterance].append((row.value.start, normalise(row.value.label)))
    if unsorted:
        advice = "sort it by recording, then start"
        found.note("order", name, unsorted, "not sorted by recording and start", advice)
    found.ctms[name] = [line for *_, line in sorted(kept, key=lambda item: item[:2])]
    for utterance, timed in labels.items() if name == CTM["words"] else ():
        words = [label for _, label in sorted(timed, key=lambda item: item[0])]
        if words != normalise(found.rows["text"][utterance]).split():
            what, advice = "its words are not those of text", "mend the one that is wrong"
            found.warn("words", name, utterance, what, advice)


def fix_data_dir(path: Path) -> Examination:
    """Repair a data directory; never touches the audio.

    Sorts, drops repeated and malformed lines and the utterances that lack something, ends segments
    where their recording ends, makes `spk2utt` anew. The files as they were go to
    ``path/.backup-<n>``, with the first n that is free.

    Returns:
        What was found: `problems` (the fixable ones are now mended) and `dropped`.

    Raises:
        UserError: a file is missing, or no utterance would be left. Nothing is changed then.
    """
    path = Path(path)
    found = examine(path, allow_pipes=True)
    for problem in found.problems:
        if problem.kind in ("missing", "empty"):
            raise UserError(f"{problem}\nNothing was changed: a repair needs {', '.join(REQUIRED)}")
    if not any(problem.fixable for problem in found.problems):
        return found
    found.backup = _back_up(path)
    kept = {
        name: [line for _, line in sorted(table.items())] for name, table in found.lines.items()
    }
    kept |= found.ctms
    kept["spk2utt"] = [f"{key} {value}" for key, value in _inverse(found).items()]
    for name, lines in kept.items():
        if found.has(name) or name == "spk2utt":
            write_text(path / name, "".join(line + "\n" for line in lines))
    return found


def _back_up(path: Path) -> Path:
    """Copy the files to the first free ``.backup-<n>``, which appears only when it is whole."""
    number = 1
    while (backup := path / f".backup-{number}").exists():
        number += 1
    partial = path / ".backup-partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in FILES:
        if (path / name).is_file():
            shutil.copy2(path / name, partial / name)
    return partial.rename(backup)
