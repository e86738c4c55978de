"""Log-mel filterbanks (Kaldi's fbank) of utterances, and their global mean and variance."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lhotse
import torch
from lhotse import CutSet, FeatureExtractor, LilcomChunkyWriter, RecordingSet, SupervisionSet
from torch import Tensor

from plateau.config import UserError
from plateau.io import read_json, write_json

FRAME_SHIFT = 0.01  # seconds between two frames


@dataclass(frozen=True)
class FeatureOptions:
    """Features of a corpus.

    Args:
        sampling_rate: in Hz; recordings at other rates are resampled
        num_mel_bins: filterbank channels
        backend: kaldifeat (fast, batches, CPU or GPU), lhotse (needs no compiler), or auto:
            kaldifeat where it is installed
        device: where kaldifeat computes, e.g. cpu or cuda
        perturb_speed: the training set also goes in at these speeds, e.g. [0.9, 1.1]
        on_the_fly: compute features while training instead of storing them
    """

    sampling_rate: int = 16000
    num_mel_bins: int = 80
    backend: Literal["auto", "kaldifeat", "lhotse"] = "auto"
    device: str = "cpu"
    perturb_speed: tuple[float, ...] = ()
    on_the_fly: bool = False


def frame_times(frame: int, subsampling_factor: int) -> tuple[float, float]:
    """Start and end, in seconds, of the stretch of audio that an encoder's frame stands for.

    An encoder's frame t is centred on feature frame factor·t (`ConvSubsampling`), and that on the
    middle of its shift. So [t, t + 1] times the encoder's shift would be late: by 15 ms for a
    factor of 4. The first frame begins with the audio.
    """
    start = (subsampling_factor * frame - (subsampling_factor - 1) / 2) * FRAME_SHIFT
    return max(start, 0.0), start + subsampling_factor * FRAME_SHIFT


def make_extractor(options: FeatureOptions) -> FeatureExtractor:
    """Lhotse's extractor for these options; 25 ms windows every 10 ms, no dither.

    Raises:
        UserError: kaldifeat is asked for and not installed.
    """
    available = importlib.util.find_spec("kaldifeat") is not None
    if options.backend == "kaldifeat" and not available:
        raise UserError(
            "features.backend=kaldifeat, but kaldifeat is not installed; "
            "build it with 'python utils/build_kaldifeat.py' or set features.backend=auto"
        )
    if options.backend == "lhotse" or not available:
        config = lhotse.FbankConfig(
            sampling_rate=options.sampling_rate, num_mel_bins=options.num_mel_bins
        )
        return lhotse.Fbank(config)
    from lhotse.features.kaldifeat import KaldifeatFrameOptions, KaldifeatMelOptions

    return lhotse.KaldifeatFbank(
        lhotse.KaldifeatFbankConfig(
            device=options.device,
            frame_opts=KaldifeatFrameOptions(sampling_rate=options.sampling_rate),
            mel_opts=KaldifeatMelOptions(num_bins=options.num_mel_bins),
        )
    )


def make_cuts(
    recordings: RecordingSet,
    supervisions: SupervisionSet,
    options: FeatureOptions,
    *,
    perturb: bool = False,
) -> CutSet:
    """One cut per utterance, named like it, at the sampling rate of the features.

    Args:
        recordings: the audio
        supervisions: the utterances
        options: sampling rate, and the speeds to add where ``perturb``
        perturb: whether these are training cuts, which speed perturbation multiplies
    """
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    cuts = cuts.trim_to_supervisions(keep_overlapping=False)
    cuts = CutSet.from_cuts(cut.with_id(cut.supervisions[0].id) for cut in cuts)
    if any(cut.sampling_rate != options.sampling_rate for cut in cuts):
        cuts = cuts.resample(options.sampling_rate).to_eager()
    if perturb:
        copies = [cuts.perturb_speed(speed) for speed in options.perturb_speed]
        cuts = CutSet.from_cuts(cut for part in (cuts, *copies) for cut in part)
    return cuts


def compute_features(
    cuts: CutSet, options: FeatureOptions, archive: Path, num_workers: int = 1
) -> CutSet:
    """Compute and store the features of ``cuts``.

    Args:
        cuts: what to compute
        options: see `FeatureOptions`
        archive: path of the file to write, without suffix; what is there is overwritten
        num_workers: processes that read audio

    Raises:
        UserError: not everything could be stored.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    extractor = make_extractor(options)
    if isinstance(extractor, lhotse.Fbank):
        # One by one: in a batch it pads with zeros where Kaldi mirrors, and the last frames of all
        # utterances but the longest come out wrong.
        archive.with_name(f"{archive.name}.lca").unlink(missing_ok=True)
        return cuts.compute_and_store_features(
            extractor, archive, storage_type=LilcomChunkyWriter
        ).to_eager()
    stored = cuts.compute_and_store_features_batch(
        extractor,
        storage_path=archive,
        num_workers=num_workers,
        storage_type=LilcomChunkyWriter,
        overwrite=True,
    )
    # It stores in a thread whose errors nobody hears.
    if len(stored) < len(cuts):
        raise UserError(
            f"{archive}: {len(cuts) - len(stored)} of {len(cuts)} utterances could not be stored; "
            "is the disk full?"
        )
    return stored


def save_statistics(cuts: CutSet, options: FeatureOptions, path: Path) -> None:
    """Estimate mean and standard deviation per mel bin over all frames of ``cuts``; store them."""
    extractor = make_extractor(options) if options.on_the_fly else None
    statistics = cuts.compute_global_feature_stats(extractor=extractor)
    mean, std = statistics["norm_means"], statistics["norm_stds"]
    write_json(path, {"mean": mean.tolist(), "std": std.tolist()})


def load_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (F,), as `save_statistics` wrote them."""
    statistics = read_json(path)
    return torch.tensor(statistics["mean"]), torch.tensor(statistics["std"])
