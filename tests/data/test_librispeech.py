import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.librispeech import is_librispeech, read_librispeech


def make_set(root, chapters):
    """A set of LibriSpeech: transcripts by chapter and utterance, and noise."""
    random = np.random.default_rng(0)
    for chapter, texts in chapters.items():
        folder = root / chapter.replace("-", "/")
        folder.mkdir(parents=True)
        for id in texts:
            samples = random.uniform(-0.5, 0.5, 16000 + int(id[-4:]))
            soundfile.write(folder / f"{id}.flac", samples, 16000)
        lines = "".join(f"{id} {text}\n" for id, text in texts.items())
        (folder / f"{chapter}.trans.txt").write_text(lines)


CHAPTERS = {
    "84-121123": {"84-121123-0000": "GO DO YOU HEAR", "84-121123-0001": "BUT IN LESS THAN"},
    "84-99": {"84-99-0000": "IT'S"},
    "174-50561": {"174-50561-0000": "FORGOTTEN TOO"},
}


@pytest.fixture
def root(tmp_path):
    make_set(tmp_path / "LibriSpeech" / "dev-clean", CHAPTERS)
    return tmp_path / "LibriSpeech" / "dev-clean"


def test_each_flac_is_an_utterance_of_its_reader(root):
    assert is_librispeech(root) and not is_librispeech(root.parent)
    found = read_librispeech(root)
    assert {u.id: u.text for u in found} == {k: v for c in CHAPTERS.values() for k, v in c.items()}
    assert {u.speaker for u in found} == {"84", "174"}
    assert found[0].audio == str(root / "174" / "50561" / "174-50561-0000.flac")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("84-99", "84-99-0000\n", r"84-99\.trans\.txt:1: '84-99-0000' is not: 84-99-NUMBER TEXT"),
        ("84-99", "84-9-0 A\n", r"84-99\.trans\.txt:1: '84-9-0 A' is not: 84-99-NUMBER TEXT"),
        ("84-99", "84-99-0000 A\n" * 2, r"txt:2: '84-99-0000' is there for the second time"),
        ("84-99", "84-99-0000 A\n84-99-1 B\n", r"txt:2: 84-99-1\.flac is not beside it"),
        ("84-99", "", r"84-99\.trans\.txt: 1 FLACs have no line, as 84-99-0000\.flac"),
        ("84-98", "", r"84-98\.trans\.txt: its place is that of 84-99\.trans\.txt"),
    ],
)
def test_what_is_wrong_is_named(root, name, content, message):
    (root / "84" / "99" / f"{name}.trans.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        read_librispeech(root)


def test_a_folder_of_sets_is_none(root):
    with pytest.raises(UserError, match="none is there; name a set, as LibriSpeech/dev"):
        read_librispeech(root.parent)
