"""Convert an experiment's checkpoints of an older Plateau, which pickled them (``.pt``).

Nothing in them is executed: this unpickles tensors and plain data only, from the files that
``torch.save`` wrote, without ``torch.load``, which would take programs as well.
"""

import fcntl
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plateau.config import UserError, cli
from plateau.io import write_text
from plateau.text import read_lines
from plateau.training import checkpoint

# The last ones last: as long as they are old, training does not go on (`checkpoint.newest`).
NAMES = ("epoch-*.pt", "averaged.pt", "before-last.pt", "last.pt")


class _Words:
    """In place of numpy's array, its type and its dtype: the 32-bit words of its random state."""

    def __init__(self, *_: Any):
        self.words: list[int] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if isinstance(state[-1], bytes):
            self.words = np.frombuffer(state[-1], "<u4").tolist()


def _bytes(text: str, _: str) -> bytes:
    return text.encode("latin-1")


def _tensor(memory: Tensor, start: int, shape: Sequence[int], stride: Sequence[int], *_) -> Tensor:
    return memory.as_strided(shape, stride, start)


# What is called where a pickle of tensors and plain data, or of numpy's random state, names these.
_CALLS = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "numpy.core.multiarray._reconstruct": _Words,
    "numpy.ndarray": _Words,
    "numpy.dtype": _Words,
    "_codecs.encode": _bytes,
}


class _Unpickler(pickle.Unpickler):
    """Makes tensors and plain data, and calls nothing else that a pickle names."""

    def __init__(self, archive: zipfile.ZipFile):
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        super().__init__(archive.open(name))
        self.archive, self.folder = archive, name.removesuffix("data.pkl")

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _CALLS:
            return _CALLS[f"{module}.{name}"]
        if module == "torch" and re.fullmatch(r"\w+Storage", name):
            return getattr(torch, name).dtype
        raise ValueError(
            f"not read, for it would call {module}.{name}, which is no tensor or plain data"
        )

    def persistent_load(self, reference: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        """The memory of tensors, as a vector; the archive compares its checksum."""
        _, dtype, key, _, numel = reference
        content = bytearray(self.archive.read(f"{self.folder}data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if numel else torch.empty(0, dtype=dtype)


def read_pickled(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain data that ``torch.save`` wrote.

    Raises:
        UserError: damaged, or there is something else in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            state = _Unpickler(archive).load()
        if random := state.get("random"):
            numbers = (x.words if isinstance(x, _Words) else x for x in random["numpy"])
            random["numpy"] = tuple(numbers)
    except MemoryError:
        raise
    except Exception as error:  # unpickling may raise anything
        raise _not_read(path, error) from None
    return state


def _not_read(path: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{path}: damaged, or no checkpoint: {said[:200]}\n"
        "move it away, then start the same command again"
    )


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal, bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)  # NaN is NaN, 0.0 is not -0.0


def convert_file(old: Path) -> None:
    """Write what a checkpoint holds anew, read it back, and put the old file aside."""
    new, aside = old.with_suffix(".safetensors"), old.parent / "old" / old.name
    if aside.exists():
        raise UserError(f"{aside}: there already, so {old} cannot be kept there; move it away")
    state = read_pickled(old)
    progress = state.get("progress", {})
    if "seconds_of_audio" in progress:  # its name when all data was audio
        progress["seen"] = progress.pop("seconds_of_audio")
    if not new.exists():  # else a conversion was interrupted, or both were trained
        try:
            checkpoint.save(state, new)
        except TypeError as error:
            raise _not_read(old, error) from None
    if not same(state, checkpoint.load(new)):
        raise UserError(
            f"{new}: there already, and not what {old} holds\n"
            "move one of them away, then start the same command again"
        )
    times = old.stat()
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))  # scripts ask which file is newer
    _mend_mark(old, new)
    aside.parent.mkdir(exist_ok=True)
    old.rename(aside)


def _mend_mark(old: Path, new: Path) -> None:
    """Stage 5's mark lists its outputs by size and name (utils/stages.sh): it stays finished."""
    mark = old.parent / ".done"
    if not mark.exists():
        return
    was, now = (f"{path.stat().st_size} {path.name}" for path in (old, new))
    lines = read_lines(mark)
    if was in lines:
        write_text(mark, "".join(f"{now if line == was else line}\n" for line in lines))


@contextmanager
def _alone_in(exp_dir: Path) -> Iterator[None]:
    """Hold the lock that run.sh takes."""
    with (exp_dir / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{exp_dir}: another run works there; wait for its end") from None
        yield


def main(exp_dirs: list[Path]) -> None:
    """Convert checkpoints from .pt, as an older Plateau wrote them, to .safetensors.

    Training is not done again and goes on where it was; decoding and alignment are done again. The
    old files are kept in checkpoints/old, where Plateau does not look.

    Args:
        exp_dirs: folders of experiments, exp/CORPUS/RECIPE/EXP
    """
    for exp_dir in exp_dirs:
        checkpoints = exp_dir / "checkpoints"
        if not checkpoints.is_dir():
            raise UserError(f"{exp_dir}: not an experiment: there is no folder checkpoints")
        with _alone_in(exp_dir):
            found = [path for name in NAMES for path in sorted(checkpoints.glob(name))]
            for path in found:
                convert_file(path)
        kept = f"; the old ones are kept in {checkpoints / 'old'}" if found else ""
        print(f"{checkpoints}: {len(found)} checkpoints converted{kept}")


if __name__ == "__main__":
    cli(main)
