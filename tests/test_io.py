from pathlib import Path

import pytest

from plateau.io import read_json, replacing, write_json, write_text


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


def test_json_is_read_back(tmp_path: Path):
    value = [{"metric": "wer", "value": 0.1, "word": "mwána"}]
    write_json(tmp_path / "results.json", value)
    assert read_json(tmp_path / "results.json") == value
    assert "mwána" in (tmp_path / "results.json").read_text(encoding="utf-8")
