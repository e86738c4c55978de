import math
import pickle
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from plateau.training.state_file import read_state, write_state

TENSORS = st.sampled_from(
    [
        torch.arange(6, dtype=torch.float32).view(2, 3),
        torch.tensor(3),
        torch.zeros(0, 4),
        torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.arange(12.0).view(3, 4).t(),  # not contiguous
        torch.arange(5, dtype=torch.uint8),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TENSORS
KEYS = st.text(max_size=5) | st.integers() | st.sampled_from(["$tensor", "a.b", "$items"])
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=10,
)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@settings(max_examples=200)
@given(STATES)
def test_what_is_written_is_read_back(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "state"
    write_state(state, path)
    assert same(read_state(path), state)


@pytest.fixture
def written(tmp_path):
    """A file as a trainer writes it, of a model and its optimizer."""
    torch.manual_seed(0)
    model = torch.nn.Linear(7, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 7)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    state |= {"random": {"python": random.getstate(), "torch": torch.get_rng_state()}}
    write_state(state, tmp_path / "state")
    return tmp_path / "state"


def test_every_flipped_bit_is_found(written):
    content = written.read_bytes()
    bits = random.Random(0).sample(range(8 * len(content)), 1000)
    # And all of the first bytes, the length of the header and its beginning, and of the last.
    for bit in [*bits, *range(8 * 64), *range(8 * len(content) - 64, 8 * len(content))]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        written.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"\w"):
            read_state(written)


def test_a_file_cut_anywhere_is_found(written):
    content = written.read_bytes()
    for part in range(20):
        written.write_bytes(content[: part * len(content) // 20])
        with pytest.raises(ValueError, match=r"\w"):
            read_state(written)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_executed(tmp_path):
    path = tmp_path / "state"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Payload(tmp_path / "evil"))),
        lambda: torch.save({"model": Payload(tmp_path / "evil")}, path),
    ):
        write()
        with pytest.raises(ValueError, match="Error while deserializing header"):
            read_state(path)
    assert not (tmp_path / "evil").exists()
    torch.load(path)  # the payload is one
    assert (tmp_path / "evil").exists()


def test_other_things_are_refused_and_the_file_stays(written):
    before = written.read_bytes()
    with pytest.raises(TypeError, match=r"model\.x: a set cannot be written"):
        write_state({"model": {"x": {1}}}, written)
    assert written.read_bytes() == before


def test_files_and_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_state(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="none"):
        write_state({}, tmp_path / "none" / "state")
    with pytest.raises(IsADirectoryError):
        read_state(tmp_path)


def test_other_programs_find_the_tensors_by_name(written):
    tensors = load_file(written)
    torch.manual_seed(0)
    shapes = {f"model.{name}": p.shape for name, p in torch.nn.Linear(7, 5).named_parameters()}
    assert {n: x.shape for n, x in tensors.items() if n.startswith("model.")} == shapes
    assert tensors["optimizer.state.0.step"] == 1


def test_no_two_tensors_have_one_name(tmp_path):
    x = torch.arange(4.0)
    state = {"a": {"b": x}, "a.b": x + 4, "a.b'": x + 8, "__metadata__": x + 12}
    write_state(state, tmp_path / "state")
    assert same(read_state(tmp_path / "state"), state)


def test_tensors_that_changed_places_are_found(tmp_path):
    """Of one shape and type, so that the file is as good as it was to other readers."""
    path = tmp_path / "state"
    write_state({"x": torch.zeros(2), "y": torch.ones(2)}, path)
    content = path.read_bytes().replace(b'"x":{', b'"z":{').replace(b'"y":{', b'"x":{')
    path.write_bytes(content.replace(b'"z":{', b'"y":{'))
    assert torch.equal(load_file(path)["x"], torch.ones(2))
    with pytest.raises(ValueError, match="its checksum is another one"):
        read_state(path)


def test_tensors_that_share_memory_are_written(tmp_path):
    x = torch.arange(6.0)
    write_state({"a": x, "b": x, "c": x[2:4]}, tmp_path / "state")
    found = read_state(tmp_path / "state")
    assert torch.equal(found["b"], x) and torch.equal(found["c"], x[2:4])
