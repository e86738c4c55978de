"""SpecAugment: masks on the features of training (Park et al. 2019), by Lhotse."""

from dataclasses import dataclass, replace

import torch
from lhotse.dataset import SpecAugment

from plateau.data.loading import Batch
from plateau.ranges import COUNT, SHARE, above, at_least, check_options


@dataclass(frozen=True)
class SpecAugmentOptions:
    """Masks on the training features (Park et al. 2019), by Lhotse.

    Args:
        p: share of the utterances that are masked; 0 turns it off
        after_epochs: epochs without masks at the beginning; with masks CTC says nothing but blank
            for longer
        time_warp_factor: largest shift in frames; 0 turns warping off
        num_feature_masks: bands of mel bins to mask
        features_mask_size: widest band, in mel bins
        num_frame_masks: stretches of time to mask
        frames_mask_size: longest stretch, in frames
        max_frames_mask_fraction: largest share of an utterance that may be masked
    """

    p: float = 0.9
    after_epochs: int = 0
    time_warp_factor: int = 80
    num_feature_masks: int = 2
    features_mask_size: int = 27
    num_frame_masks: int = 10
    frames_mask_size: int = 100
    max_frames_mask_fraction: float = 0.15

    def __post_init__(self) -> None:
        check_options(
            self,
            "training.spec_augment",
            p=SHARE,
            after_epochs=COUNT,
            time_warp_factor=at_least(0, 10**6),
            num_feature_masks=at_least(0, 1000),
            features_mask_size=at_least(1, 1000),
            num_frame_masks=at_least(1, 1000),
            frames_mask_size=at_least(2, 10**6),
            max_frames_mask_fraction=above(0, 1),
        )


def make_spec_augment(options: SpecAugmentOptions) -> SpecAugment:
    """Lhotse's module for these options."""
    return SpecAugment(
        time_warp_factor=options.time_warp_factor or None,
        num_feature_masks=options.num_feature_masks,
        features_mask_size=options.features_mask_size,
        num_frame_masks=options.num_frame_masks,
        frames_mask_size=options.frames_mask_size,
        max_frames_mask_fraction=options.max_frames_mask_fraction,
        p=options.p,
    )


def masked(batch: Batch, spec_augment: SpecAugment) -> Batch:
    """The batch with masks; its padding stays as it is.

    So does a batch in which the masked share would be less than a frame: Lhotse divides by zero.
    """
    if spec_augment.max_frames_mask_fraction * batch.features.shape[1] < 1:
        return batch
    number = torch.arange(len(batch.lengths))
    lengths = batch.lengths.cpu()
    segments = torch.stack([number, torch.zeros_like(lengths), lengths], dim=1)  # (N, 3)
    features = spec_augment(batch.features, supervision_segments=segments)
    return replace(batch, features=features)
