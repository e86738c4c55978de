"""Log-mel filterbanks (Kaldi's fbank) of utterances, and their global mean and variance."""

import importlib.util
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import lhotse
import numpy as np
import torch
from lhotse import (
    CutSet,
    FeatureExtractor,
    LilcomChunkyWriter,
    MonoCut,
    RecordingSet,
    SupervisionSet,
)
from torch import Tensor
from tqdm import tqdm

from plateau.config import UserError
from plateau.data import backend  # noqa: F401 (so that Lhotse reads audio as we do)
from plateau.data.archives import CHECKSUM, write_array
from plateau.data.audio import SHORTEST, is_too_short
from plateau.data.native_fbank import FRAME_SHIFT, NativeFbank, NativeFbankConfig
from plateau.io import naming, read_json, write_json
from plateau.ranges import at_least, check_options

# Kaldi's filterbanks by three packages, as equal as float32 has them (4e-4 from the exact ones on
# recordings of yesno): any can stand in for another within an experiment.
Backend = Literal["kaldifeat", "kaldi-native-fbank", "lhotse"]


@dataclass(frozen=True)
class FeatureOptions:
    """Features of a corpus.

    Args:
        sampling_rate: in Hz; recordings at other rates are resampled
        num_mel_bins: filterbank channels
        backend: kaldifeat (CPU or GPU; needs a compiler), kaldi-native-fbank (what sherpa-onnx
            computes), lhotse, or auto: the first of them that is installed
        device: where kaldifeat computes, e.g. cpu or cuda
        perturb_speed: the training set also goes in at these speeds, e.g. [0.9, 1.1]
        on_the_fly: compute features while training instead of storing them
    """

    sampling_rate: int = 16000
    num_mel_bins: int = 80
    backend: Literal["auto", Backend] = "auto"
    device: str = "cpu"
    perturb_speed: tuple[float, ...] = ()
    on_the_fly: bool = False

    def __post_init__(self) -> None:
        check_options(
            self,
            "features",
            sampling_rate=at_least(2000, 10**6),
            num_mel_bins=at_least(1, 1000),
            perturb_speed=at_least(0.2, 5),
        )
        try:
            torch.device(self.device)
        except RuntimeError:
            raise UserError(
                f"features.device is {self.device!r}; it must be a device of torch, as cpu or cuda"
            ) from None
        if _has_empty_filters(self.sampling_rate, self.num_mel_bins):
            most = self.num_mel_bins - 1
            while _has_empty_filters(self.sampling_rate, most):
                most -= 1
            raise UserError(
                f"features.num_mel_bins is {self.num_mel_bins}; at {self.sampling_rate} Hz it must "
                f"be at most {most}: filters would be narrower than a frequency of the transform"
            )


def _has_empty_filters(sampling_rate: int, num_mel_bins: int) -> bool:
    """Whether a triangular filter has no frequency in it; Kaldi's code then aborts the process.

    As in Kaldi's `MelBanks`: a window of 25 ms, padded to a power of two; filters from 20 Hz to
    400 Hz below half the sampling rate.
    """
    size = 1 << (int(SHORTEST * sampling_rate) - 1).bit_length()

    def mel(hertz: np.ndarray | float) -> np.ndarray | float:
        return 1127 * np.log1p(hertz / 700)

    frequencies = mel(np.arange(size // 2) * sampling_rate / size)
    low, high = mel(20.0), mel(sampling_rate / 2 - 400)
    edges = np.linspace(low, high, num_mel_bins + 2)
    first = np.searchsorted(frequencies, edges[:-2], side="right")  # above the left edge
    end = np.searchsorted(frequencies, edges[2:], side="left")  # below the right one
    return bool((first >= end).any())


def frame_times(frame: int, subsampling_factor: int) -> tuple[float, float]:
    """Start and end, in seconds, of the stretch of audio that an encoder's frame stands for.

    An encoder's frame t is centred on feature frame factor·t (`ConvSubsampling`), and that on the
    middle of its shift. So [t, t + 1] times the encoder's shift would be late: by 15 ms for a
    factor of 4. The first frame begins with the audio.
    """
    start = (subsampling_factor * frame - (subsampling_factor - 1) / 2) * FRAME_SHIFT
    return max(start, 0.0), start + subsampling_factor * FRAME_SHIFT


def choose_backend(wanted: Literal["auto", Backend]) -> Backend:
    """Return the package that computes features here.

    Raises:
        UserError: it is not installed.
    """
    modules = {name: name.replace("-", "_") for name in get_args(Backend)}
    available = [name for name, module in modules.items() if importlib.util.find_spec(module)]
    chosen = available[0] if wanted == "auto" else wanted
    if chosen not in available:
        how = {
            "kaldifeat": "build it with 'python utils/build_kaldifeat.py'",
            "kaldi-native-fbank": "install it with 'python -m pip install kaldi-native-fbank'",
        }
        raise UserError(
            f"features.backend={chosen}, but {chosen} is not installed; "
            f"{how[chosen]} or set features.backend=auto"
        )
    return chosen


def make_extractor(options: FeatureOptions) -> FeatureExtractor:
    """Lhotse's extractor for these options; 25 ms windows every 10 ms, no dither.

    Raises:
        UserError: the backend that is asked for is not installed.
    """
    chosen = choose_backend(options.backend)
    rate, bins = options.sampling_rate, options.num_mel_bins
    if chosen == "lhotse":
        return lhotse.Fbank(lhotse.FbankConfig(sampling_rate=rate, num_mel_bins=bins))
    if chosen == "kaldi-native-fbank":
        return NativeFbank(NativeFbankConfig(sampling_rate=rate, num_mel_bins=bins))
    from lhotse.features.kaldifeat import KaldifeatFrameOptions, KaldifeatMelOptions

    return lhotse.KaldifeatFbank(
        lhotse.KaldifeatFbankConfig(
            device=options.device,
            frame_opts=KaldifeatFrameOptions(sampling_rate=rate),
            mel_opts=KaldifeatMelOptions(num_bins=bins),
        )
    )


def utterance_cuts(
    recordings: RecordingSet, supervisions: SupervisionSet, sampling_rate: int
) -> CutSet:
    """One cut per utterance, named like it, resampled where the audio has another rate (Hz)."""
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    cuts = cuts.trim_to_supervisions(keep_overlapping=False)
    cuts = CutSet.from_cuts(cut.with_id(cut.supervisions[0].id) for cut in cuts)
    if any(cut.sampling_rate != sampling_rate for cut in cuts):
        cuts = cuts.resample(sampling_rate).to_eager()
    return cuts


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
    cuts = utterance_cuts(recordings, supervisions, options.sampling_rate)
    if perturb:
        copies = [cuts.perturb_speed(speed) for speed in options.perturb_speed]
        # Faster copies of the shortest utterances would be too short.
        copies = [cut for copy in copies for cut in copy if not is_too_short(cut.duration)]
        cuts = CutSet.from_cuts([*cuts, *copies])
    return cuts


def compute_features(
    cuts: CutSet, options: FeatureOptions, archive: Path, num_workers: int = 1
) -> CutSet:
    """Compute and store the features of ``cuts``, and a checksum of each in its cut.

    Args:
        cuts: what to compute
        options: see `FeatureOptions`
        archive: path of the file to write, without suffix; what is there is overwritten
        num_workers: processes that read audio

    Raises:
        UserError: names the utterance whose audio cannot be read or features cannot be stored.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    extractor = make_extractor(options)
    failed: list[tuple[str, Exception]] = []
    checksums: dict[str, int] = {}  # by storage key
    writing = None

    class Writer(LilcomChunkyWriter):
        """Lhotse stores in a thread whose errors nobody hears."""

        def write(self, key: str, value: np.ndarray) -> str:
            try:
                storage_key, checksum = write_array(self, value)
            except Exception as error:
                failed.append((writing or key, error))
                raise
            checksums[storage_key] = checksum
            return storage_key

        def close(self) -> None:
            with naming(self.storage_path):  # what is written last
                super().close()

    try:
        if isinstance(extractor, lhotse.Fbank):
            # One by one: in a batch it pads with zeros where Kaldi mirrors, and the last frames of
            # all utterances but the longest come out wrong.
            archive.with_name(f"{archive.name}.lca").unlink(missing_ok=True)
            stored = []
            with Writer(archive) as storage:
                for cut in tqdm(cuts, "features", len(cuts), disable=None):
                    writing = cut.id
                    stored.append(cut.compute_and_store_features(extractor, storage))
        else:
            stored = cuts.compute_and_store_features_batch(
                extractor,
                storage_path=archive,
                num_workers=num_workers,
                storage_type=Writer,
                overwrite=True,
            )
    except Exception:
        if not failed:
            _look_at_audio(cuts)
            raise
    if failed:
        key, error = failed[0]
        free = shutil.disk_usage(archive.parent).free
        raise UserError(
            f"{archive}.lca: the features of '{key}' could not be stored: {error}\n"
            f"{free / 1e6:.0f} MB are free there"
        )
    if len(stored) < len(cuts):
        missing = sorted({cut.id for cut in cuts} - {cut.id for cut in stored})
        raise UserError(f"{archive}.lca: no features of {missing[0]} ({len(missing)} such)")
    # In place of what samplers put there.
    return CutSet.from_cuts(
        replace(cut, custom={CHECKSUM: checksums[cut.features.storage_key]}) for cut in stored
    )


def _look_at_audio(cuts: CutSet) -> None:
    """Raise `UserError` for the first utterance whose audio cannot be read."""
    for cut in cuts:
        read_audio(cut)


def read_audio(cut: MonoCut) -> np.ndarray:
    """Samples of a cut, (T,).

    Raises:
        UserError: names the utterance whose audio cannot be read.
    """
    try:
        return cut.load_audio()[0]
    except Exception as error:  # Lhotse adds lines to it, and has exceptions of its own
        reason = str(error).splitlines()[0]
        raise UserError(
            f"utterance '{cut.id}': its audio cannot be read as it could in stage 1: {reason}\n"
            "look at all audio again: the same ./run.sh with --stage 1 --stop-stage 1 --force"
        ) from None


def save_statistics(cuts: CutSet, options: FeatureOptions, path: Path) -> None:
    """Estimate mean and standard deviation per mel bin over all frames of ``cuts``; store them."""
    extractor = make_extractor(options) if options.on_the_fly else None
    statistics = cuts.compute_global_feature_stats(extractor=extractor)
    mean, std = statistics["norm_means"], statistics["norm_stds"]
    write_json(path, {"mean": mean.tolist(), "std": std.tolist()})


def load_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (F,), as `save_statistics` wrote them.

    Raises:
        UserError: no such file, or something else.
    """
    statistics = read_json(path)
    try:
        mean, std = (
            torch.tensor(statistics[name], dtype=torch.float32) for name in ("mean", "std")
        )
        if mean.shape != (len(std),) or not torch.stack((mean, std)).isfinite().all():
            raise ValueError
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(
            f"{path}: not mean and std; remove it, and give the run.sh command again"
        ) from None
    return mean, std
