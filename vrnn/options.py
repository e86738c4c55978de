"""Options of the recipe for models with latent variables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plateau.config import UserError
from plateau.data.frames import FrameOptions
from plateau.data.sequence_loading import SequenceLoadingOptions
from plateau.models.bounds import BoundOptions
from plateau.models.distributions import OutputOptions
from plateau.models.vae import VaeOptions
from plateau.models.vrnn import VrnnOptions
from plateau.ranges import at_least, check_options
from plateau.training.experiment import ExperimentOptions
from plateau.training.spec_augment import SpecAugmentOptions
from plateau.training.trainer import TrainingOptions


@dataclass(frozen=True)
class EvaluationOptions:
    """How the sets are evaluated.

    Args:
        importance_samples: K of the importance-weighted bound; 0: only the ELBO
        importance_sequences: it is of so many sequences of a set, the first; 0: of all
        batch_size: sequences at once
    """

    importance_samples: int = 16
    importance_sequences: int = 50
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_options(
            self,
            "decoding",
            importance_samples=at_least(0, 10**6),
            importance_sequences=at_least(0, 10**6),
            batch_size=at_least(1, 10**5),
        )


@dataclass(frozen=True)
class Options(ExperimentOptions):
    """A model with latent variables, on sequences or images.

    Args:
        kind: sequences: the corpus has sequences or images. frames: it is one of speech, of which
            frames of the waveform are made
        frames: see `FrameOptions`; with kind=frames
        model: vrnn: recurrent, with latents or without; vae: for images, or each step alone
        vrnn: see `VrnnOptions`
        vae: see `VaeOptions`
        bound: see `BoundOptions`
        loading: see `SequenceLoadingOptions`
        training: see `TrainingOptions`
        decoding: see `EvaluationOptions`
    """

    kind: Literal["sequences", "frames"] = "sequences"
    frames: FrameOptions = FrameOptions()
    model: Literal["vrnn", "vae"] = "vrnn"
    vrnn: VrnnOptions = VrnnOptions()
    vae: VaeOptions = VaeOptions()
    bound: BoundOptions = BoundOptions()
    loading: SequenceLoadingOptions = SequenceLoadingOptions()
    training: TrainingOptions = TrainingOptions(spec_augment=SpecAugmentOptions(p=0))
    decoding: EvaluationOptions = EvaluationOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.training.spec_augment.p:
            raise UserError(
                f"training.spec_augment.p is {self.training.spec_augment.p}; it must be 0 here: "
                "these sequences are no spectrograms"
            )

    @property
    def prepared(self) -> str:
        """The folder with the sequences, below that of the corpus."""
        return "frames" if self.kind == "frames" else "."

    @property
    def sequences(self) -> Path:
        """The folder with the sequences."""
        return Path(self.data_dir) / self.prepared

    @property
    def output(self) -> OutputOptions:
        """The output distribution of the model that is chosen."""
        return self.vrnn.output if self.model == "vrnn" else self.vae.output
