import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.kaldi import Interval, read_data_dir

TEXT = "wa ádi bvέ"


def add(folder: Path, name: str, text: str = TEXT, suffix: str = ".wav") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mb.cleaned").write_text(text + "\n", encoding="utf-8")
    soundfile.write(folder / f"{name}{suffix}", np.zeros(1600), 16000)


@pytest.fixture
def corpus(tmp_path) -> Path:
    root = tmp_path / "mboshi"
    newsplit = root / "full_corpus_newsplit"
    for number in range(41):
        add(
            newsplit / "train",
            f"abiayi_2015_Dico3_{number:02d}",
            suffix=(".wav", ".flac")[number % 2],
        )
    for number in range(3):
        add(newsplit / "dev", f"martial_2015_Dico9_{number}", unicodedata.normalize("NFD", TEXT))
    return root


def align(corpus: Path, name: str, words: str, phones: str = "") -> None:
    folder = corpus / "ZRC_scoring" / "mboshi" / "in"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.wrd").write_text(words, encoding="utf-8")
    (folder / f"{name}.phn").write_text(phones, encoding="utf-8")


def test_sets_and_texts(mboshi, corpus, tmp_path):
    mboshi.main(tmp_path / "data", corpus)
    sets = {name: read_data_dir(tmp_path / "data" / name) for name in ("train", "dev", "test")}
    numbers = {name: [int(u.id[-2:]) for u in sets[name]] for name in ("train", "dev")}
    assert numbers["dev"] == [19, 39]  # every 20th
    assert numbers["train"] == [n for n in range(41) if n not in (19, 39)]
    assert [u.id for u in sets["test"]] == [f"martial-2015_Dico9_{n}" for n in range(3)]
    for utterances in sets.values():
        for u in utterances:
            assert u.text == unicodedata.normalize("NFC", TEXT)
            assert Path(u.audio).is_absolute()
            assert Path(u.audio).exists()
            assert (u.words, u.phones) == ((), ())  # no alignments there
    assert not list((tmp_path / "data").rglob("*.wav"))


def test_silver_alignments(mboshi, corpus, tmp_path, capsys):
    good = "0.00 0.10 SIL\n0.10 0.25 wá\n0.25 0.40 XSIL\n0.40 0.55 adi\n0.55 0.90 bvε\n"
    phones = "0.00 0.10 SIL\n0.10 0.15 W\n0.15 0.25 Á\n"
    align(corpus, "martial_2015_Dico9_0", good, phones)
    align(corpus, "martial_2015_Dico9_1", good.replace("0.40 0.55", "0.20 0.55"), phones)
    align(corpus, "martial_2015_Dico9_2", good.replace("adi", "ada"), phones)
    mboshi.main(tmp_path / "data", corpus)
    aligned, out_of_order, other_words = read_data_dir(tmp_path / "data" / "test")
    # spelled as in the transcript, silences left out
    assert aligned.words == (
        Interval(0.10, 0.15, "wa"),
        Interval(0.40, 0.15, unicodedata.normalize("NFC", "ádi")),
        Interval(0.55, 0.35, unicodedata.normalize("NFC", "bvέ")),
    )
    assert aligned.phones == (Interval(0.10, 0.05, "W"), Interval(0.15, 0.10, "Á"))
    assert out_of_order.words == out_of_order.phones == ()
    assert other_words.words == other_words.phones == ()
    assert set(capsys.readouterr().out.strip().split(", ")) == {
        "41 no alignment",
        "1 aligned",
        "1 alignment out of order",
        "1 alignment of other words",
    }


def test_newsplit_itself_may_be_given(mboshi, corpus, tmp_path):
    mboshi.main(tmp_path / "one", corpus)
    mboshi.main(tmp_path / "two", corpus / "full_corpus_newsplit")
    for name in ("train", "dev", "test"):
        assert read_data_dir(tmp_path / "one" / name) == read_data_dir(tmp_path / "two" / name)


def test_mistakes_are_told(mboshi, corpus, tmp_path):
    with pytest.raises(UserError, match="transcripts are not there"):
        mboshi.main(tmp_path / "data", tmp_path)
    with pytest.raises(UserError, match="--corpus-dir"):
        mboshi.main(tmp_path / "data")
    align(corpus, "martial_2015_Dico9_2", "0.0 0.1 wa\n0.1 adi\n")
    with pytest.raises(UserError, match=r"Dico9_2\.wrd:2"):
        mboshi.main(tmp_path / "data", corpus)
    transcript = corpus / "full_corpus_newsplit" / "dev" / "martial_2015_Dico9_0.mb.cleaned"
    text = transcript.read_text(encoding="utf-8")
    transcript.write_text(text, encoding="utf-16")
    with pytest.raises(UserError, match=r"Dico9_0\.mb\.cleaned: UTF-16"):
        mboshi.main(tmp_path / "data", corpus)
    transcript.write_text(text, encoding="utf-8")
    (corpus / "full_corpus_newsplit" / "dev" / "martial_2015_Dico9_1.wav").unlink()
    with pytest.raises(UserError, match=r"Dico9_1\.mb\.cleaned"):
        mboshi.main(tmp_path / "data", corpus)
    assert not (tmp_path / "data").exists()
