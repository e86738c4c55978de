import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plateau.config import user_errors
from plateau.io import NAME_BYTES, file_name, replacing, write_text


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "new folder" / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path):
    with replacing(tmp_path / "cuts.jsonl.gz") as temporary:
        assert temporary.name.endswith(".jsonl.gz")
        assert temporary.parent == tmp_path


def test_an_id_is_its_file_name_where_that_is_possible():
    assert file_name("spk-1 ö(a)", ".TextGrid") == "spk-1 ö(a).TextGrid"
    assert file_name("/etc/x") == "%2Fetc%2Fx" != file_name("%2Fetc%2Fx")
    assert file_name("..") == "%2E."
    assert file_name("a\nb\0") == "a%0Ab%00"


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_ids_have_different_file_names(one: str, other: str):
    assert (file_name(one) == file_name(other)) == (one == other)


@given(st.text(alphabet="xö/漢", min_size=150, max_size=400))
def test_long_ids_are_cut_to_names_that_file_systems_take(id: str):
    name = file_name(id)
    assert 0 < len(name.encode()) <= NAME_BYTES
    assert name != file_name(id + "x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file(tmp_path: Path, number: int):
    write_text(tmp_path / "file.txt", "old")
    with pytest.raises(SystemExit) as exit, user_errors(), replacing(tmp_path / "file.txt"):
        raise OSError(number, os.strerror(number))
    assert exit.value.code.endswith(f": {tmp_path}/file.txt: {os.strerror(number)}")
    assert (tmp_path / "file.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
