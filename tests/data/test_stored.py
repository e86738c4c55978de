"""What a manifest could make Lhotse do is refused before Lhotse sees it."""

import contextlib
import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lhotse import CutSet, RecordingSet
from lhotse.cut import MixedCut

from plateau.config import UserError
from plateau.data.corpus import Corpus
from plateau.data.features import compute_features
from plateau.data.stored import read_manifest
from tests.training.toy import FEATURES, make_cut_set


@pytest.fixture(scope="module")
def cut(tmp_path_factory) -> dict[str, Any]:
    """A cut with features, as it is in a manifest."""
    return make_cut_set(tmp_path_factory.mktemp("toy"), count=1)[0].to_dict()


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def command(recording: dict, payload: str) -> None:
    recording["sources"][0].update(type="command", source=payload)


def of_recording(cut: dict, payload: str) -> dict:
    command(cut["recording"], payload)
    return cut


def of_a_track(cut: dict, payload: str) -> dict:
    mixed = CutSet.from_dicts([cut])[0].pad(duration=100)
    assert isinstance(mixed, MixedCut)
    data = mixed.to_dict()
    command(data["tracks"][0]["cut"]["recording"], payload)
    return data


def of_a_field_of_its_own(cut: dict, payload: str) -> dict:
    noise = json.loads(json.dumps(cut["recording"]))
    command(noise, payload)
    cut["custom"] = {"noise": noise}
    return cut


def of_features(cut: dict, payload: str) -> dict:
    cut["features"].update(
        storage_type="numpy_files", storage_path=f"pipe:{payload} #", storage_key="x"
    )
    return cut


def of_an_array(cut: dict, payload: str) -> dict:
    cut["custom"] = {
        "labels": {
            "storage_type": "numpy_files",
            "storage_path": f"pipe:{payload} #",
            "storage_key": "x",
            "shape": [1],
        }
    }
    return cut


LOADS = [
    (of_recording, lambda cut: cut.load_audio()),
    (of_a_track, lambda cut: cut.load_audio()),
    (of_a_field_of_its_own, lambda cut: cut.load_noise()),
    (of_features, lambda cut: cut.load_features()),
    (of_an_array, lambda cut: cut.load_labels()),
]


@pytest.mark.parametrize(("make", "load"), LOADS)
def test_a_payload_that_lhotse_runs_is_refused(cut, tmp_path, make: Callable, load: Callable):
    mark = tmp_path / "executed"
    path = tmp_path / "cuts.jsonl.gz"
    write(path, cut, make(json.loads(json.dumps(cut)), f"touch {mark}"))
    *_, by_lhotse = CutSet.from_file(path)
    with contextlib.suppress(Exception):  # what comes is no audio
        load(by_lhotse)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(UserError) as error:
        load(list(read_manifest(CutSet, path))[1])
    assert not mark.exists()
    assert str(error.value).startswith(f"{path}:2: ")
    assert 1 <= len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("kind", ["url", "memory", "shar", "video", ""])
def test_only_files_are_sources(cut, tmp_path, kind):
    cut = json.loads(json.dumps(cut))
    cut["recording"]["sources"][0].update(type=kind, source="http://example.invalid/x.wav")
    path = write(tmp_path / "cuts.jsonl.gz", cut)
    with pytest.raises(UserError, match=rf"recording 'spk-00' is of type {kind}; only files"):
        list(read_manifest(CutSet, path))


def test_every_manifest_of_a_corpus_is_looked_at(cut, tmp_path):
    corpus = Corpus(tmp_path)
    bad = of_recording(json.loads(json.dumps(cut)), "true")
    write(corpus.manifest("cuts", "train"), bad)
    write(corpus.manifest("recordings", "train"), bad["recording"])
    write(corpus.manifest("supervisions", "train"), {**cut["supervisions"][0], "custom": bad})
    for read in (corpus.cuts, corpus.recordings, corpus.supervisions):
        with pytest.raises(UserError, match="is a shell command: true"):
            list(read("train"))


def test_commands_run_where_they_are_allowed_as_the_message_says(cut, tmp_path, monkeypatch):
    wav = cut["recording"]["sources"][0]["source"]
    path = write(
        tmp_path / "r.jsonl.gz",
        of_recording(json.loads(json.dumps(cut)), f"cat {wav}")["recording"],
    )
    with pytest.raises(UserError) as error:
        list(read_manifest(RecordingSet, path))
    said = re.search(r"export (\w+)=(\w+)", str(error.value))
    monkeypatch.setenv(*said.groups())
    (recording,) = read_manifest(RecordingSet, path)
    assert recording.load_audio().shape == (1, cut["recording"]["num_samples"])


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a changed byte": lambda path: path.write_bytes(
        (content := path.read_bytes())[:200] + bytes([content[200] ^ 1]) + content[201:]
    ),
    "not gzip": lambda path: path.write_bytes(b"nothing of that kind\n"),
    "not JSON": lambda path: path.write_bytes(gzip.compress(b"nothing of that kind\n")),
    "another object": lambda path: path.write_bytes(gzip.compress(b'{"type": "MonoCut"}\n')),
    "a number": lambda path: path.write_bytes(gzip.compress(b"1\n")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_a_line_and_the_command_helps(tmp_path, damage):
    cuts = make_cut_set(tmp_path / "toy")
    path = tmp_path / "manifests" / "cuts.jsonl.gz"
    path.parent.mkdir()
    cuts.to_file(path)
    DAMAGE[damage](path)
    with pytest.raises(UserError, match=r"cuts\.jsonl\.gz(:\d+)?: damaged: ") as error:
        list(read_manifest(CutSet, path))
    (remedy,) = re.findall(r": (rm -r .*?);", str(error.value))
    subprocess.run(remedy, shell=True, check=True)
    assert not path.parent.exists()


def test_what_plateau_writes_is_read_as_it_was(tmp_path):
    cuts = make_cut_set(tmp_path / "toy")
    cuts = compute_features(cuts.drop_features(), FEATURES, tmp_path / "fbank")
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    read = read_manifest(CutSet, tmp_path / "cuts.jsonl.gz")
    assert list(read) == list(read) == list(cuts)
    assert len(read) == len(cuts)
