from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.kaldi import read_data_dir


@pytest.fixture
def waves(tmp_path) -> Path:
    folder = tmp_path / "waves_yesno"
    folder.mkdir()
    for digits in islice(product("01", repeat=8), 60):
        soundfile.write(folder / f"{'_'.join(digits)}.wav", np.zeros(80), 8000)
    return folder


def test_sets_are_kaldis_and_texts_are_the_names(yesno, waves, tmp_path):
    before = sorted(waves.iterdir())
    yesno.main(tmp_path / "data", waves)
    sets = {name: read_data_dir(tmp_path / "data" / name) for name in ("train", "dev", "test")}
    # islice(product) counts up in binary: recording n has the digits of n
    names = {"train": range(30), "dev": range(25, 30), "test": range(30, 60)}
    for name, utterances in sets.items():
        expected = [
            " ".join("YES" if bit == "1" else "NO" for bit in f"{n:08b}") for n in names[name]
        ]
        assert [u.text for u in utterances] == expected
        assert [Path(u.audio) for u in utterances] == [before[n] for n in names[name]]
        assert all(Path(u.audio).is_absolute() for u in utterances)
    assert sorted(waves.iterdir()) == before
    assert {u.speaker for utterances in sets.values() for u in utterances} == {"man"}
    assert not list((tmp_path / "data").rglob("*.wav"))  # nothing copied


def test_wrong_folder_is_told_and_changes_nothing(yesno, waves, tmp_path):
    yesno.main(tmp_path / "data", waves)
    before = {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()}
    for path in sorted(waves.iterdir())[:7]:
        path.unlink()
    for folder, found in ((waves, "53 recordings"), (tmp_path, "0 recordings"), (None, "give")):
        with pytest.raises(UserError, match=found) as error:
            yesno.main(tmp_path / "data", folder)
        assert "waves_yesno.tar.gz" in str(error.value)
    after = {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert after == before


def test_config_has_nothing_to_choose(yesno, waves, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("corpus: {}\n")
    yesno.main(tmp_path / "data", waves, config)
    config.write_text("corpus: {repeats: 2}\n")
    with pytest.raises(UserError, match="repeats"):
        yesno.main(tmp_path / "data", waves, config)
