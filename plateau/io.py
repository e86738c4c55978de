"""Files that are either whole or absent: written beside their place and renamed into it."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plateau.errors import UserError
from plateau.text import name_of, read_text


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Where there is no room for what is written, say for which file; a write knows no name."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` if the block succeeds.

    The temporary name ends like ``path`` (libraries choose formats by suffix) and starts with a
    dot. It is flushed to disk before the rename, so that a crash leaves the old file or the new.

    Raises:
        UserError: it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: not written, for it is a folder; remove it, or name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix="-" + path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Raises:
        UserError: as `check_text`; nothing is written.
    """
    check_text(path, text)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_text(path: Path, text: str) -> None:
    """See that `plateau.text.read_text` would give back a text that is to be written.

    Raises:
        UserError: it has a character that no text file has.
    """
    bad = re.search("\\A\ufeff|[\0\ud800-\udfff]", text)
    if bad:
        raise UserError(f"{path}: not written: {name_of(bad[0])} in its text; take it out")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, non-ASCII characters as they are."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file.

    Raises:
        UserError: no such file, or not JSON.
    """
    return parse_json(read_text(path), f"{path}")


def parse_json(text: str, where: str) -> Any:
    """What JSON says.

    Args:
        text: of the file, or of a line.
        where: it was found.

    Raises:
        UserError: not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None


NAME_BYTES = (
    200  # of a file name; file systems allow 255, and suffixes and temporary names add some
)


def file_name(id: str, suffix: str = "") -> str:
    """The file name that stands for an id: the id itself wherever that is possible.

    Percent signs, slashes, control characters and a leading dot are written ``%XX``, as in
    addresses. A name longer than `NAME_BYTES` is cut, and ends with a checksum of the whole id, so
    that no two ids share a file.
    """
    unsafe = {c for c in id if c in "/%" or ord(c) < 32 or ord(c) == 127}
    name = "".join(f"%{ord(c):02X}" if c in unsafe else c for c in id)
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    encoded = name.encode("utf-8")
    if len(encoded) > NAME_BYTES:
        checksum = hashlib.sha256(id.encode("utf-8")).hexdigest()[:12]
        name = f"{encoded[: NAME_BYTES - 13].decode('utf-8', errors='ignore')}-{checksum}"
    return name + suffix
