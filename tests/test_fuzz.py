"""The check of all readers finds what a reader must not do."""

import warnings

import pytest

from plateau.config import UserError
from tests.fuzz import Reader, refusal


def forever(path):
    while True:
        pass


def much_memory(path):
    bytearray(1 << 40)


def a_warning(path):
    warnings.warn("invalid value", RuntimeWarning, stacklevel=1)


def no_name(path):
    raise UserError("not of this form")


def many_lines(path):
    raise UserError(f"{path}: 1\n2\n3\n4")


def another_error(path):
    path.read_bytes().decode("utf-8")


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (forever, pytest.raises(AssertionError, match="takes more than")),
        (much_memory, pytest.raises(MemoryError)),
        (a_warning, pytest.raises(RuntimeWarning)),
        (no_name, pytest.raises(AssertionError, match="no file is named")),
        (many_lines, pytest.raises(AssertionError, match="more than three lines")),
        (another_error, pytest.raises(UnicodeDecodeError)),
    ],
)
def test_a_bad_reader_is_found(read, found, tmp_path):
    reader = Reader("x.read", read, "x", b"\xff")
    with found:
        refusal(reader, reader.put(tmp_path, reader.example))


def test_a_good_reader_passes(tmp_path):
    def read(path):
        if not path.read_bytes():
            raise UserError(f"{path}: empty")

    reader = Reader("x.read", read, "x", b"a")
    assert refusal(reader, reader.put(tmp_path, b"a")) is None
    assert refusal(reader, reader.put(tmp_path, b"")) == f"{tmp_path / 'x'}: empty"
