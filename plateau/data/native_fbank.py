"""Kaldi's filterbanks by kaldi-native-fbank, which needs no compiler, as Lhotse's extractor."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from lhotse import FeatureExtractor
from lhotse.features.base import register_extractor
from torch import Tensor

FRAME_SHIFT = 0.01  # seconds between two frames


@dataclass
class NativeFbankConfig:
    """What Lhotse stores of the extractor.

    Args:
        sampling_rate: in Hz
        num_mel_bins: filterbank channels
    """

    sampling_rate: int = 16000
    num_mel_bins: int = 80

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "NativeFbankConfig":
        """Return what `to_dict` was made of."""
        return NativeFbankConfig(**data)


@register_extractor
class NativeFbank(FeatureExtractor):
    """Log-mel energies of 25 ms windows every 10 ms, no dither: those of Kaldi and kaldifeat."""

    name = "kaldi-native-fbank"
    config_type = NativeFbankConfig

    @property
    def frame_shift(self) -> float:
        """Seconds between two frames."""
        return FRAME_SHIFT

    def feature_dim(self, sampling_rate: int) -> int:
        """Return the number of mel bins."""
        return self.config.num_mel_bins

    def extract(self, samples: np.ndarray | Tensor, sampling_rate: int) -> np.ndarray:
        """Return the features (T, F), in nats, of samples in -1..1, (S,) or (1, S)."""
        import kaldi_native_fbank

        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = self.config.sampling_rate
        options.frame_opts.dither = 0
        options.frame_opts.snip_edges = False
        options.mel_opts.num_bins = self.config.num_mel_bins
        options.mel_opts.high_freq = -400
        fbank = kaldi_native_fbank.OnlineFbank(options)
        fbank.accept_waveform(sampling_rate, np.asarray(samples).reshape(-1).tolist())
        fbank.input_finished()
        frames = [fbank.get_frame(t) for t in range(fbank.num_frames_ready)]
        return np.stack(frames) if frames else np.zeros((0, self.config.num_mel_bins), np.float32)

    def extract_batch(
        self,
        samples: Sequence[np.ndarray | Tensor],
        sampling_rate: int,
        lengths: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """Return the features (T, F) of each utterance, each as if it were alone.

        Args:
            samples: of each utterance, perhaps padded
            sampling_rate: in Hz
            lengths: samples of each that are no padding
        """
        if lengths is not None:
            samples = [x[..., :length] for x, length in zip(samples, lengths, strict=True)]
        return [self.extract(x, sampling_rate) for x in samples]
