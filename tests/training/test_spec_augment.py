import pytest
import torch

from plateau.data.loading import Batch
from plateau.training.spec_augment import SpecAugmentOptions, make_spec_augment, masked


@pytest.mark.parametrize("frames", [1, 3, 6, 7, 8, 13, 40])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"max_frames_mask_fraction": 1e-6},
        {"max_frames_mask_fraction": 1.0},
        {"frames_mask_size": 2, "num_frame_masks": 1000},
        {"features_mask_size": 1000, "num_feature_masks": 0},
    ],
)
def test_utterances_of_any_length_can_be_masked(frames, values):
    """Lhotse divides by zero where less than a frame may be masked: such batches stay."""
    spec_augment = make_spec_augment(SpecAugmentOptions(p=1.0, **values))
    features = torch.randn(2, frames, 20)
    batch = Batch(features, torch.tensor([frames, 1]), ["a", "b"], ["1", "2"], 0.1)
    found = masked(batch, spec_augment)
    assert found.features.isfinite().all() and found.features.shape == features.shape
    if values.get("max_frames_mask_fraction", 0.15) * frames < 1:
        torch.testing.assert_close(found.features, features)
