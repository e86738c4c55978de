"""Files of tensors and plain data: safetensors, the rest as JSON in its header, and a checksum.

Any reader of safetensors finds the tensors by their names, ``model.encoder.…``. Nothing in such a
file could be executed.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file, storage_ptr
from torch import Tensor

# In the header: the state, with a mark wherever JSON has nothing of the kind; and the checksum.
_STATE, _CHECKSUM = "state", "crc32"
_TENSOR, _TUPLE, _ITEMS = "$tensor", "$tuple", "$items"


def write_state(state: Any, path: Path) -> None:
    """Write a state; not atomic, see `plateau.io.replacing`.

    Args:
        state: dicts, lists and tuples of tensors, numbers, text, true, false and None.
        path: where.

    Raises:
        TypeError: there is something else in it; nothing is written.
        OSError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_to_json(state, "", tensors))
    tensors = _apart(tensors)
    try:
        save_file(tensors, path, {_STATE: text, _CHECKSUM: _checksum(text, tensors)})
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


def read_state(path: Path) -> Any:
    """Read a state; tensors are on the CPU, and in memory of their own.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it was changed or cut, or another program wrote it.
    """
    with Path(path).open("rb") as opened:  # safetensors says no such device where it is a folder
        opened.read(1)
    try:
        # Not mapped: what was checked is what is used, whatever happens to the file.
        with safe_open(path, "pt", backend="pread") as file:
            header = file.metadata() or {}
            tensors = file.get_tensors()
        if not {_STATE, _CHECKSUM} <= header.keys():
            raise ValueError("there is no checksum in it")
        if _checksum(header[_STATE], tensors) != header[_CHECKSUM]:
            raise ValueError("its checksum is another one")
        return _from_json(json.loads(header[_STATE]), tensors)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a header may lead to
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said[:200]) from None


def _to_json(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON can have it; its tensors go to ``tensors``."""
    if isinstance(value, Tensor):
        while name in tensors or name == "__metadata__":  # "a.b" may be in "a" or not
            name += "'"
        tensors[name] = value
        return {_TENSOR: name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        values = _each_to_json(enumerate(value), name, tensors)
        return {_TUPLE: values} if isinstance(value, tuple) else values
    if not isinstance(value, dict):
        raise TypeError(f"{name}: a {type(value).__name__} cannot be written")
    values = _each_to_json(value.items(), name, tensors)
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return dict(zip(value, values, strict=True))
    keys = [_to_json(key, name, tensors) for key in value]
    return {_ITEMS: list(zip(keys, values, strict=True))}


def _each_to_json(
    items: Iterable[tuple[Any, Any]], name: str, tensors: dict[str, Tensor]
) -> list[Any]:
    prefix = f"{name}." if name else ""
    return [_to_json(value, f"{prefix}{key}", tensors) for key, value in items]


def _from_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_to_json`."""
    if isinstance(value, list):
        return [_from_json(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        if value[_TENSOR] not in tensors:
            raise ValueError(f"there is no tensor {value[_TENSOR]} in it")
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_from_json(value[_TUPLE], tensors))
    if _ITEMS in value:
        return dict(_from_json(value[_ITEMS], tensors))
    return {key: _from_json(item, tensors) for key, item in value.items()}


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors wants them: on the CPU, dense, and none in another's memory."""
    apart, memory = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if storage_ptr(tensor) in memory:
            tensor = tensor.clone()
        memory.add(storage_ptr(tensor))
        apart[name] = tensor
    return apart


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    """CRC-32, which finds any change of up to 32 bits in a row, of all that a state is made of."""
    crc = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        kind = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        crc = zlib.crc32(kind.encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"
