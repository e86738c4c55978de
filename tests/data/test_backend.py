"""Lhotse reads what `read_audio` reads, whatever the environment says and in workers, too."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from lhotse import Recording
from lhotse.audio.backend import get_current_audio_backend
from torch.utils.data import DataLoader

from plateau.data.audio import read_audio
from plateau.data.backend import PlateauBackend


@pytest.mark.parametrize("module", ["features", "loading", "manifests", "corpus"])
def test_it_is_in_force_where_audio_is_loaded(module):
    code = (
        f"import plateau.data.{module}\n"
        "from lhotse.audio.backend import get_current_audio_backend as get\n"
        "print(type(get()).__name__)"
    )
    environment = {**os.environ, "LHOTSE_AUDIO_BACKEND": "AudioreadBackend"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "PlateauBackend"


class Loads:
    def __init__(self, recording: Recording):
        self.recording = recording

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
        return type(get_current_audio_backend()).__name__, self.recording.load_audio()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_in_workers(tone, context):
    """Sphere files by their suffix would need a program (sph2pipe)."""
    path = tone("a.sph", 0.5, format="NIST")
    loader = DataLoader(
        Loads(Recording.from_file(path)),
        batch_size=None,
        num_workers=1,
        multiprocessing_context=context,
        worker_init_fn=import_backend,
    )
    ((name, samples),) = loader
    assert name == "PlateauBackend"
    np.testing.assert_array_equal(samples[0], soundfile.read(path, dtype="float32")[0])


def import_backend(worker: int) -> None:
    """Plateau's datasets import it with their module; this test's does with this function."""
    assert PlateauBackend is not None


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_pieces_are_those_of_the_whole(tone, suffix):
    path = tone(f"a.{suffix}", 2.0, rate=16000, channels=2)
    recording = Recording.from_file(path)
    whole, rate = read_audio(path)
    assert (whole.shape[1], rate) == (recording.num_samples, recording.sampling_rate)
    np.testing.assert_array_equal(recording.load_audio(), whole)
    piece = recording.load_audio(channels=1, offset=0.7, duration=0.5)
    np.testing.assert_allclose(piece[0], whole[1, 11200:19200], atol=1e-6)
