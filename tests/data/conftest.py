"""Small recordings and data directories for the tests of plateau/data."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.data.kaldi import Interval, Utterance, write_data_dir


@pytest.fixture
def tone(tmp_path):
    """Return a function that writes noise of a given length and returns its path."""

    def write(
        name: str, seconds: float = 1.0, rate: int = 8000, channels: int = 1, **kwargs
    ) -> str:
        path = tmp_path / "audio" / name
        path.parent.mkdir(exist_ok=True)
        random = np.random.default_rng(0)
        samples = random.uniform(-0.5, 0.5, (round(seconds * rate), channels))
        soundfile.write(path, samples, rate, **kwargs)
        return str(path)

    return write


@pytest.fixture
def segmented(tmp_path, tone) -> Path:
    """Two recordings of 2 s, three utterances of two speakers, with words and phones."""
    first, second = tone("first.wav", 2.0), tone("second.flac", 2.0)
    path = tmp_path / "train"
    utterances = [
        Utterance(
            id="ann-1",
            speaker="ann",
            text="hello world",
            audio=first,
            recording_id="rec1",
            start=0.125,
            end=1.0,
            words=(Interval(0.125, 0.25, "hello"), Interval(0.5, 0.375, "world")),
            phones=(Interval(0.125, 0.1, "h"), Interval(0.3, 0.075, "o")),
        ),
        Utterance(
            "ann-2", "ann", "again", first, "rec1", 1.0, None, (Interval(1.5, 0.25, "again"),)
        ),
        Utterance("bob-1", "bob", "tɔ́ŋ", second, "rec2", 0.5, 1.75, (Interval(0.75, 0.5, "tɔ́ŋ"),)),
    ]
    write_data_dir(path, utterances)
    return path


@pytest.fixture
def whole(tmp_path, tone) -> Path:
    """Three recordings of 1 s that are utterances of one speaker."""
    path = tmp_path / "dev"
    write_data_dir(
        path, [Utterance(f"eve-{i}", "eve", f"word {i}", tone(f"{i}.wav")) for i in range(3)]
    )
    return path
