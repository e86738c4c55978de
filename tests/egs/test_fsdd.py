from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.kaldi import read_data_dir

RATE = 8000
SPEAKERS = ("anna", "ben")
SILENT = "7_anna_3"  # this recording has 50 ms of silence before, and 100 ms after its word


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Recordings of loud noise, each different from all others."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for speaker in SPEAKERS:
        for digit in (0, 4, 7):
            for index in range(14):
                samples = rng.uniform(-0.5, 0.5, rng.integers(1000, 3000))
                name = f"{digit}_{speaker}_{index}"
                if name == SILENT:
                    samples[:400] = samples[-800:] = 0
                soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="PCM_16")
    return folder


def identify(corpus: Path) -> dict[bytes, str]:
    """Name of each recording by its samples."""
    names = {}
    for path in corpus.glob("*.wav"):
        samples, _ = soundfile.read(path, dtype="int16")
        if path.stem == SILENT:
            # silence is cut in whole frames of 10 ms
            end = (len(samples) - 800 + 79) // 80 * 80
            samples = samples[400:end]
        names[samples.tobytes()] = path.stem
    return names


def test_words_are_the_recordings_sample_by_sample(fsdd, corpus, tmp_path):
    fsdd.main(tmp_path / "data", corpus)
    names = identify(corpus)
    for part, indices, times_used in (
        ("test", range(5), 1),
        ("dev", range(5, 10), 1),
        ("train", range(10, 14), 4),
    ):
        used: Counter[str] = Counter()
        for u in read_data_dir(tmp_path / "data" / part):
            samples, rate = soundfile.read(u.audio, dtype="int16")
            assert rate == RATE
            assert [word.label for word in u.words] == u.text.split()
            assert 3 <= len(u.words) <= 8
            position = 0
            for word in u.words:
                first = round(word.start * RATE)
                last = first + round(word.duration * RATE)
                assert word.start * RATE == pytest.approx(first, abs=1e-6)
                name = names[samples[first:last].tobytes()]
                digit, speaker, index = name.split("_")
                assert {"0": "ZERO", "4": "FOUR", "7": "SEVEN"}[digit] == word.label
                assert speaker == u.speaker
                assert int(index) in indices
                used[name] += 1
                pause = samples[position:first]
                assert 0.05 * RATE - 1 <= len(pause) <= 0.4 * RATE + 1
                assert np.sqrt(np.mean((pause / 32768) ** 2)) < 10 ** (-49 / 20)
                position = last
            assert 0.05 * RATE - 1 <= len(samples) - position <= 0.4 * RATE + 1
        expected = {
            f"{d}_{s}_{i}": times_used for d in (0, 4, 7) for s in SPEAKERS for i in indices
        }
        assert used == expected


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "wav.scp"
    }


def test_seed_and_repeats(fsdd, corpus, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("corpus: {seed: 5}\n")
    fsdd.main(tmp_path / "one", corpus, seed=5, repeats=1)
    fsdd.main(tmp_path / "two", corpus, config=config, repeats=1)
    fsdd.main(tmp_path / "three", corpus, seed=6, repeats=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "three")
    words = [w for u in read_data_dir(tmp_path / "one" / "train") for w in u.words]
    assert len(words) == 2 * 3 * 4
    fsdd.main(tmp_path / "three", corpus, seed=5, repeats=1)  # again, with other options
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_mistakes_are_told(fsdd, corpus, tmp_path):
    with pytest.raises(UserError, match="no recordings of all three sets"):
        fsdd.main(tmp_path / "data", tmp_path)
    with pytest.raises(UserError, match="--corpus-dir"):
        fsdd.main(tmp_path / "data")
    with pytest.raises(UserError, match="repeats is 0"):
        fsdd.main(tmp_path / "data", corpus, repeats=0)
    soundfile.write(corpus / "0_anna_1.wav", np.zeros(4000), 16000)
    with pytest.raises(UserError, match=r"0_anna_1\.wav: not a recording of FSDD"):
        fsdd.main(tmp_path / "data", corpus)
    assert not (tmp_path / "data").exists()
