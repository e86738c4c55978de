"""Lhotse reads audio as Plateau does, wherever this module is imported.

Lhotse would choose among libraries by a file's suffix (for .sph a program that few have), and by
the environment variable LHOTSE_AUDIO_BACKEND: features would come from other samples than those
that were checked.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from lhotse.audio.backend import (
    LibsndfileBackend,
    LibsndfileCompatibleAudioInfo,
    set_current_audio_backend,
)

from plateau.data.audio import inspect_audio, read_audio


class PlateauBackend(LibsndfileBackend):
    """Lhotse's way to `read_audio`; audio is written as Lhotse does."""

    def read_audio(
        self,
        path_or_fd: str | Path | BytesIO,
        offset: float = 0.0,
        duration: float | None = None,
        force_opus_sampling_rate: int | None = None,
    ) -> tuple[np.ndarray, int]:
        """Samples (C, S), float32, and the sampling rate; offset and duration in seconds."""
        return read_audio(path_or_fd, offset, duration)

    def info(
        self, path_or_fd: str | Path | BytesIO, force_opus_sampling_rate: int | None = None
    ) -> LibsndfileCompatibleAudioInfo:
        """Length as it is decoded."""
        found = inspect_audio(path_or_fd if isinstance(path_or_fd, BytesIO) else str(path_or_fd))
        return LibsndfileCompatibleAudioInfo(
            found.channels, found.num_samples, found.sampling_rate, found.duration
        )


set_current_audio_backend(PlateauBackend())
