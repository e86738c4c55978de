"""What is found in a Kaldi data directory, and how it is told."""

import shlex
import sys
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from plateau.data.audio import AudioError, AudioInfo
from plateau.data.lines import Segment, Value

SHOWN = 20  # problems of a kind that are printed


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
        option: what makes `validate_data_dir.py` mend it
    """

    kind: str
    path: Path
    where: str
    what: str
    advice: str
    fixable: bool = True
    warning: bool = False
    option: str = "--fix"

    @property
    def finding(self) -> str:
        """Where it is and what is wrong."""
        place = f"{self.path}:{self.where}" if self.where else str(self.path)
        return " ".join(f"{place}: {'warning: ' * self.warning}{self.what}".split())

    def __str__(self) -> str:
        return f"{self.finding}; {self.advice}{f' ({self.option} does)' * self.fixable}"


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
        audio: what was found of each entry of `wav.scp` that was looked at
        durations: seconds of each recording that is not bad; None where it was not looked at
        backup: where a repair left the files as they were; None if it changed nothing
    """

    path: Path
    problems: list[Problem] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    lines: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, dict[str, Value]] = field(default_factory=dict)
    ctms: dict[str, list[str]] = field(default_factory=dict)
    audio: dict[str, AudioInfo | AudioError] = field(default_factory=dict)
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
        """Duration of an utterance, None if its recording was not looked at."""
        segment = self.segments[utterance]
        end = self.durations[segment.recording_id] if segment.end is None else segment.end
        return None if end is None else end - segment.start

    def summary(self) -> str:
        """Counts of utterances, speakers and hours."""
        speakers = len(set(self.rows["utt2spk"].values()))
        seconds = [self.seconds(utterance) for utterance in self.rows["text"]]
        hours = sum(s for s in seconds if s is not None) / 3600
        piped = " besides what was not read" if None in seconds else ""
        return f"{len(seconds)} utterances, {speakers} speakers, {hours:.2f} hours{piped}"


def report(problems: list[Problem], mended: bool = False) -> None:
    """Print problems on stderr, the first of each kind, then the number of the others."""
    count = Counter()
    start = "mended: " if mended else ""
    for problem in problems:
        count[problem.path, problem.kind] += 1
        if count[problem.path, problem.kind] <= SHOWN:
            print(f"{start}{problem.finding if mended else problem}", file=sys.stderr)
    for (path, kind), number in count.items():
        if number > SHOWN:
            print(f"{start}{path}: {number - SHOWN} more of kind '{kind}'", file=sys.stderr)


def is_valid(found: Examination) -> bool:
    """Print what was found, on stderr; whether the directory can be worked with."""
    report(found.problems)
    errors = [problem for problem in found.problems if not problem.warning]
    if not errors:
        return True
    if fixable := [problem for problem in errors if problem.fixable]:
        # A repair that runs no commands cannot tell which fail.
        option = max((problem.option for problem in fixable), key=len)
        which = "all" if len(fixable) == len(errors) else f"{len(fixable)} of them"
        command = f"python local/validate_data_dir.py {option} {shlex.quote(str(found.path))}"
        print(f"mend {which}: {command}", file=sys.stderr)
    print(f"{found.path}: {len(errors)} problems", file=sys.stderr)
    return False
