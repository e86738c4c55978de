"""Lhotse manifests that are read again: nothing in them is run or fetched unless that is allowed.

Lhotse gives a recording's source of type `command` to a shell and fetches one of type `url`;
features of most storage types may be at `pipe:COMMAND` or at a URL. Who gets a data folder from
others gets such things with it. So each line is looked at before Lhotse makes an object of it, and
only what Plateau writes itself is taken.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from lhotse import CutSet, RecordingSet, SupervisionSet
from lhotse.lazy import LazyManifestIterator
from lhotse.serialization import deserialize_item

from plateau.config import UserError

T = TypeVar("T", RecordingSet, SupervisionSet, CutSet)
# Says "true" where shell commands may run: `run.sh --allow-pipes` sets it for all that it starts.
ALLOW_PIPES = "PLATEAU_ALLOW_PIPES"
STORAGE_TYPE = "lilcom_chunky"  # of features, which Lhotse opens as a file and nothing else


def read_manifest(kind: type[T], path: Path) -> T:
    """The set that a manifest ``.jsonl.gz`` has, read anew whenever it is gone through.

    Raises:
        UserError: when it is gone through: a line is damaged, or names what is not to be opened.
    """
    return kind(_Lines(path))


class _Lines(LazyManifestIterator):
    """The objects of a manifest, each looked at first."""

    def __iter__(self) -> Iterator[Any]:
        lines = iter(self.source)
        for number in count(1):
            with _told(self.path, f"{self.path}:{number}"):
                data = next(lines, None)
                if data is None:
                    return
                _check(data)
                item = deserialize_item(data)
            yield item

    def __len__(self) -> int:
        with _told(self.path, str(self.path)):
            return super().__len__()


@contextmanager
def _told(path: Path, place: str) -> Iterator[None]:
    """What is wrong at a place of a manifest, as a `UserError`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    # gzip's, JSON's, and those of objects that lack a field
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{place}: damaged: {said}\nmake it again: rm -r {quote(str(Path(path).parent))}; then "
            "start the same ./run.sh again, without --stage"
        ) from None


def _check(data: Any) -> None:
    """Raise `UserError` for what would be run or fetched, however deep it lies."""
    if isinstance(data, list):
        for part in data:
            _check(part)
    if not isinstance(data, dict):
        return
    for source in data.get("sources") or ():
        _check_source(source, data.get("id"))
    if data.get("storage_type", STORAGE_TYPE) != STORAGE_TYPE:
        raise UserError(
            f"stored as {data['storage_type']}, which could run a command; only {STORAGE_TYPE} is "
            "read here"
        )
    for part in data.values():
        _check(part)


def _check_source(source: dict[str, Any], recording: str) -> None:
    kind = source["type"]
    if kind == "command" and os.environ.get(ALLOW_PIPES) != "true":
        raise UserError(
            f"recording '{recording}' is a shell command: {source['source']}\nif you trust it: the "
            f"same ./run.sh with --allow-pipes (for another script: export {ALLOW_PIPES}=true)"
        )
    if kind not in ("file", "command"):
        raise UserError(f"recording '{recording}' is of type {kind}; only files are read here")
