"""Inputs that files never should have, and what every reader must make of them."""

import gzip
import resource
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from plateau.config import UserError
from plateau.text import BOM

SECONDS = 1.0  # of the processor, for an input
BYTES = 1 << 30  # that an input may take

# What is put in place of a field, or anywhere: no text, no number, or one that nobody meant.
ODD = [
    *[b"\0", BOM, b"\r", b"\xe4", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"", b"\n"],
    *[c.encode() for c in ("\u2028", "\u00a0", "\u0085", "\u0301", "\u200b", "▁", "\x1b[31m")],
    *[b"-1", b"0", b"-0.0", b"1e308", b"-1e308", b"1e-320", b"nan", b"inf", b"-inf", b"1_000"],
    *["１２".encode(), "²".encode(), b"+5", b"0x10", b"1" + b"0" * 400, b"9" * 5000],
    *[b"2147483648", b"4294967296", b"1000000000000", b"<eps>", b"#0", b"%s", b"{0}", b'"', b"\\"],
    b"x" * 100_000,
]
SEPARATORS = [b" ", b" ", b"\n", b"\n", b"\t", b"", b"\r\n", b": ", b"\xc2\xa0"]
BINARY = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0",
    b"\xff",
]


@dataclass(frozen=True)
class Reader:
    """A function that reads a file, and what to try it with.

    Args:
        covers: module and name of the function
        read: calls it with the path
        name: of the file, in a folder of its own
        example: a file that it reads
        pieces: of the format; files are made of them
        bad: a line of which the number must be told; None where lines are not told
        around: other files of the folder
        errors: what it may raise
        share: of all inputs, against 1 for others
    """

    covers: str
    read: Callable[[Path], Any]
    name: str
    example: bytes
    pieces: Sequence[str | bytes] = ()
    bad: str | None = None
    around: Mapping[str, bytes] = field(default_factory=dict)
    errors: tuple[type[Exception], ...] = (UserError,)
    share: float = 1.0

    def __str__(self) -> str:
        return f"{self.covers.removeprefix('plateau.')}-{self.name}"

    def put(self, folder: Path, content: bytes | None) -> Path:
        """Write the files; None: not the one to be read."""
        for name, other in self.around.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(other)
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        return path


def contents(reader: Reader) -> st.SearchStrategy[bytes]:
    """Any bytes, the pieces of the format in any order, and the example with some changes."""
    pieces = [p.encode() if isinstance(p, str) else p for p in reader.pieces] or ODD
    part = st.sampled_from(pieces) | st.sampled_from(ODD)
    joined = st.lists(st.tuples(part, st.sampled_from(SEPARATORS)), max_size=30).map(
        lambda parts: b"".join(part + separator for part, separator in parts)
    )
    changes = st.lists(_change(pieces), min_size=1, max_size=3)
    changed = changes.map(lambda changes: _changed(reader.example, changes))
    return st.one_of(st.binary(max_size=100), joined, *[changed] * 4)


Change = tuple[Callable[[bytes, int, int, bytes], bytes], int, int, bytes]


def _change(pieces: Sequence[bytes]) -> st.SearchStrategy[Change]:
    """What to do, at two places (in 1/10000 of the whole), and with what."""
    place = st.integers(0, 9999)
    what = st.sampled_from(pieces) | st.sampled_from(ODD) | st.sampled_from(BINARY)
    return st.tuples(st.sampled_from(CHANGES), place, place, what)


def _changed(content: bytes, changes: Sequence[Change]) -> bytes:
    for change, first, second, what in changes:
        content = change(content, first, second, what)
    return content


def _overwrite(content: bytes, first: int, second: int, what: bytes) -> bytes:
    at = len(content) * first // 10_000
    return content[:at] + what + content[at + len(what) :]


def _insert(content: bytes, first: int, second: int, what: bytes) -> bytes:
    at = len(content) * first // 10_000
    return content[:at] + what + content[at:]


def _byte(content: bytes, first: int, second: int, what: bytes) -> bytes:
    at = len(content) * first // 10_000
    return content[:at] + bytes([second % 256]) + content[at + 1 :]


def _head(content: bytes, first: int, second: int, what: bytes) -> bytes:
    """A byte of the first 64, where binary formats have their numbers."""
    at = first % 64
    return content[:at] + bytes([second % 256]) + content[at + 1 :]


def _cut(content: bytes, first: int, second: int, what: bytes) -> bytes:
    return content[: len(content) * first // 10_000]


def _field(content: bytes, first: int, second: int, what: bytes) -> bytes:
    """Another word in place of one."""
    lines = content.split(b"\n")
    at = len(lines) * first // 10_000
    fields = lines[at].split(b" ")
    fields[len(fields) * second // 10_000] = what
    lines[at] = b" ".join(fields)
    return b"\n".join(lines)


def _drop_line(content: bytes, first: int, second: int, what: bytes) -> bytes:
    lines = content.split(b"\n")
    del lines[len(lines) * first // 10_000]
    return b"\n".join(lines)


def _double_line(content: bytes, first: int, second: int, what: bytes) -> bytes:
    lines = content.split(b"\n")
    line = lines[len(lines) * first // 10_000]
    lines.insert(len(lines) * second // 10_000, line)
    return b"\n".join(lines)


def _swap_lines(content: bytes, first: int, second: int, what: bytes) -> bytes:
    lines = content.split(b"\n")
    a, b = (len(lines) * place // 10_000 for place in (first, second))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def _encode(content: bytes, first: int, second: int, what: bytes) -> bytes:
    """As another program may have saved it."""
    text = content.decode("utf-8", "replace")
    return [
        BOM + content,
        text.encode("utf-16"),
        text.encode("utf-16-le"),
        text.encode("latin-1", "replace"),
        gzip.compress(content, mtime=0),
        content.replace(b"\n", b"\r\n"),
        content.replace(b"\n", b"\r"),
        b"",
    ][first % 8]


CHANGES = [
    _overwrite,
    _insert,
    _byte,
    _head,
    _cut,
    _field,
    _field,
    _drop_line,
    _double_line,
    _swap_lines,
    _encode,
]


class TooSlow(BaseException):
    """An input took longer than `SECONDS`; no reader can catch it."""


@contextmanager
def limited() -> Iterator[None]:
    """Let what is inside take `SECONDS` of the processor, and `BYTES`; warnings are errors."""

    def stop(*_: object) -> None:
        raise TooSlow

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except TooSlow:
        raise AssertionError(f"takes more than {SECONDS} s") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def refusal(reader: Reader, path: Path) -> str | None:
    """What the reader says of a file that it does not take; None where it has a result.

    Anything else than a result or an error of its own, which names the file in one to three lines,
    fails.
    """
    try:
        with limited():
            reader.read(path)
    except reader.errors as error:
        message = str(error)
    else:
        return None
    named = path.parent if path.exists() else str(path).removesuffix(reader.name)
    assert str(named) in message, f"no file is named: {message[:500]!r}"
    assert message.count("\n") < 3, f"more than three lines: {message[:500]!r}"
    return message
