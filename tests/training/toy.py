"""A tiny recipe for the trainer's tests: letters are tones, and a small network learns them.

`utils/torchrun.py … tests/training/toy.py CUTS EXP_DIR` trains it with several processes.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor, nn

from plateau.data.features import FeatureOptions, compute_features, make_cuts
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.data.loading import Batch, BatchLoader, LoadingOptions
from plateau.data.manifests import to_manifests
from plateau.training.checkpoint import set_seed
from plateau.training.distributed import Workers, join
from plateau.training.interfaces import Loss
from plateau.training.schedule import ScheduleOptions
from plateau.training.spec_augment import SpecAugmentOptions
from plateau.training.trainer import Trainer, TrainingOptions

RATE = 8000  # Hz
TONES = {"a": 300, "b": 800, "c": 2000}  # Hz
FEATURES = FeatureOptions(sampling_rate=RATE, num_mel_bins=20, backend="lhotse")
OPTIONS = TrainingOptions(
    seed=3,
    epochs=3,
    schedule=ScheduleOptions(peak=1e-2, warmup_steps=3),
    spec_augment=SpecAugmentOptions(time_warp_factor=5, features_mask_size=4, frames_mask_size=8),
    average_last=2,
    checkpoint_every=2,
)
CALM = dataclasses.replace(OPTIONS, spec_augment=SpecAugmentOptions(p=0))  # nothing random
ALONE = Workers(0, 1, torch.device("cpu"))
POISON = "spk-03"  # an utterance, see `poisoned_loss`


def speak(letters: str, random: np.random.Generator) -> np.ndarray:
    """A tone of 0.1 s for each letter, with a pause before each, and noise."""
    seconds = np.arange(round(0.1 * RATE)) / RATE
    pause = np.zeros(round(0.05 * RATE))
    sounds = [x for c in letters for x in (pause, 0.3 * np.sin(2 * np.pi * TONES[c] * seconds))]
    samples = np.concatenate([*sounds, pause])
    return samples + random.normal(0, 0.003, len(samples))


def make_cut_set(directory: Path, count: int = 12) -> CutSet:
    """Utterances of one to five letters with stored features."""
    random = np.random.default_rng(0)
    utterances = []
    (directory / "audio").mkdir(parents=True)
    for i in range(count):
        letters = "".join(random.choice(list(TONES), size=1 + i % 5))
        audio = directory / "audio" / f"{i}.wav"
        soundfile.write(audio, speak(letters, random), RATE)
        utterances.append(Utterance(f"spk-{i:02}", "spk", " ".join(letters), str(audio)))
    write_data_dir(directory / "kaldi", utterances)
    cuts = make_cuts(*to_manifests(directory / "kaldi"), FEATURES)
    return compute_features(cuts, FEATURES, directory / "fbank")


class Toy(nn.Module):
    """Two layers with dropout in between; its buffer counts its calls."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(20, 16, 3, padding=1), nn.ReLU(), nn.Dropout(dropout), nn.Conv1d(16, 4, 1)
        )
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, 20) to log-probabilities (N, T, 4)."""
        self.calls += 1
        x = nn.functional.layer_norm(features, (20,)).transpose(1, 2)  # (N, 20, T)
        return self.layers(x).transpose(1, 2).log_softmax(dim=2)


def toy_loss(model: nn.Module, batch: Batch) -> Loss:
    """CTC by torch."""
    log_probs = model(batch.features, batch.lengths)  # (N, T, 4)
    targets = [[1 + "abc".index(letter) for letter in text.split()] for text in batch.texts]
    total = nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([label for target in targets for label in target]),
        batch.lengths,
        torch.tensor([len(target) for target in targets]),
        reduction="sum",
    )
    inside = torch.arange(log_probs.shape[1]) < batch.lengths[:, None]
    blank = ((log_probs.argmax(dim=2) == 0) & inside).sum()
    return Loss(total, sum(map(len, targets)), {"blank": float(blank)}, int(batch.lengths.sum()))


def make_loader(
    cuts: Sequence[Cut], workers: Workers = ALONE, num_workers: int = 0, *, shuffle: bool = False
) -> BatchLoader:
    """Batches of three utterances or so, in two buckets."""
    return BatchLoader(
        CutSet.from_cuts(cuts),
        LoadingOptions(max_duration=2.5, num_buckets=2, num_workers=num_workers),
        FEATURES,
        shuffle=shuffle,
        seed=OPTIONS.seed,
        rank=workers.rank,
        world_size=workers.world_size,
    )


def make_trainer(
    cuts: CutSet,
    exp_dir: Path,
    options: TrainingOptions = OPTIONS,
    loss_function: Callable[[nn.Module, Batch], Loss] = toy_loss,
    *,
    num_workers: int = 0,
    workers: Workers = ALONE,
    dropout: float = 0.2,
) -> Trainer:
    """A trainer as a newly started process makes it, with the last two cuts for development."""
    set_seed(options.seed)
    return Trainer(
        Toy(dropout),
        loss_function,
        make_loader(cuts[:-2], workers, num_workers, shuffle=True),
        make_loader(cuts[-2:], workers, num_workers),
        options,
        exp_dir,
        workers,
        {"training": dataclasses.asdict(options)},
    )


def poisoned_loss(model: nn.Module, batch: Batch) -> Loss:
    """`toy_loss`, not a number for a batch with a certain utterance."""
    loss = toy_loss(model, batch)
    return dataclasses.replace(loss, total=loss.total * math.nan) if POISON in batch.ids else loss


def main(cuts: str, exp_dir: str) -> None:
    """Train without anything random, so that a simulation in one process can be compared."""
    torch.set_num_threads(1)
    workers = join()
    trainer = make_trainer(
        CutSet.from_file(cuts).to_eager(),
        Path(exp_dir),
        CALM,
        poisoned_loss,
        workers=workers,
        dropout=0.0,
    )
    trainer.run()
    torch.save(trainer.model.state_dict(), Path(exp_dir) / f"rank-{workers.rank}.pt")
    workers.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
