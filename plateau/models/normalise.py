"""Global mean and variance normalisation of features."""

import torch
from torch import nn

# A feature that hardly varies in training (a band without energy) must not become huge when it
# does vary later. Log-Mel features of speech have standard deviations of about 2 to 4.
MIN_STD = 0.1


class GlobalNorm(nn.Module):
    """Features minus their mean, over their standard deviation; both are kept with the model.

    Does nothing until `set_statistics` is called or a state dict is loaded.

    Args:
        num_features: F.
        min_std: a smaller standard deviation counts as this one.
    """

    mean: torch.Tensor  # (F,)
    std: torch.Tensor  # (F,)

    def __init__(self, num_features: int, min_std: float = MIN_STD) -> None:
        super().__init__()
        self.min_std = min_std
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Take the mean and standard deviation, each (F,), over all frames of the training data.

        Raises:
            ValueError: another shape, or values that are not finite.
        """
        for name, new in (("mean", mean), ("std", std)):
            if new.shape != self.mean.shape or not new.isfinite().all():
                raise ValueError(
                    f"{name} of features must be {self.mean.numel()} finite numbers, "
                    f"not {tuple(new.shape)}: {new}"
                )
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise features (N, T, F), or (…, F)."""
        return (features - self.mean) / self.std.clamp(min=self.min_std)
