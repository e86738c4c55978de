"""Losses of a model of windows: cross entropy of masked words, and two that use times of words.

Cross entropy takes scores as they are. Of a softmax of a softmax, or with classes on another axis,
it is the same for a perfect model as for one that says the commonest word; squared errors of
probabilities have next to no gradient where a model of many words is sure and wrong.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from plateau.data.windows import PADDING
from plateau.ranges import at_least, check_options

FLOOR = 1e-4  # share of attention that counts at least: no word costs more than 9 nats


@dataclass(frozen=True)
class WindowLossOptions:
    """What counts how much.

    Args:
        weight_power: a word counts by its frequency in the training text to the power of minus
            this, over the mean of that; 0: all alike; 1: as if all were equally common
        logit_adjustment: log frequencies times this are added to scores while training, so that the
            model need not learn that common words are common (Menon et al. 2021, arXiv 2007.07314)
        padding_weight: of padding, where window.padding=token
        attention: of minus the log of the share of a word's attention that is on its own audio
        frames: of the cross entropy of what is said in each step of audio, a word or nothing
    """

    weight_power: float = 0.0
    logit_adjustment: float = 0.0
    padding_weight: float = 1.0
    attention: float = 0.5
    frames: float = 1.0

    def __post_init__(self) -> None:
        some = at_least(0, 1000)
        check_options(
            self,
            "window_loss",
            weight_power=at_least(0, 2),
            logit_adjustment=at_least(0, 10),
            padding_weight=some,
            attention=some,
            frames=some,
        )


class WindowLoss:
    """The loss of a batch in nats, summed over its words that are to be found.

    Args:
        counts: (V,), how often each word, and padding, is to be found in training.
        options: see `WindowLossOptions`.
    """

    def __init__(self, counts: Tensor, options: WindowLossOptions) -> None:
        self.options = options
        prior = (counts + 1) / (counts + 1).sum()  # (V,); what is never said has some, too
        self.adjustment = options.logit_adjustment * prior.log()  # (V,)
        weights = prior**-options.weight_power
        self.weights = weights / (prior * weights).sum()  # (V,), mean of 1 over the training text
        self.weights[PADDING] = options.padding_weight

    def words(self, logits: Tensor, words: Tensor, wanted: Tensor) -> Tensor:
        """Cross entropy of scores (N, W, V) at places ``wanted`` (N, W) that have ``words``."""
        scores = logits[wanted] + self.adjustment.to(logits)  # (n, V)
        weights = self.weights.to(logits)
        return F.cross_entropy(scores, words[wanted], weights, reduction="sum")

    def attention(self, attention: Tensor, spans: Tensor, wanted: Tensor) -> Tensor:
        """How little of the attention (N, W, T) of the wanted words (N, W) is on their own steps.

        ``spans`` (N, W, 2) are starts and ends in steps.
        """
        share = (attention * within(spans, attention.shape[2])).sum(2)  # (N, W)
        return -share[wanted].clamp(min=FLOOR).log().sum()

    def frames(self, logits: Tensor, words: Tensor, spans: Tensor, steps: Tensor) -> Tensor:
        """Cross entropy of what is said in each step, mean over the steps until the last word ends.

        After that there may be words that are not in the window.

        Args:
            logits: (N, T, V).
            words: (N, W).
            spans: (N, W, 2), starts and ends in steps.
            steps: (N, T) bool, those that there are.
        """
        inside = within(spans, logits.shape[1])  # (N, W, T)
        step = torch.arange(logits.shape[1], device=logits.device)
        steps = steps & (step < spans[..., 1].amax(1, keepdim=True))
        # Words do not overlap; where nothing is said, padding is: 0.
        labels = (inside * words[..., None]).amax(1)  # (N, T)
        return F.cross_entropy(logits[steps], labels[steps])


def within(spans: Tensor, num_steps: int) -> Tensor:
    """Which steps have their middle in a span (N, W, 2) of steps: (N, W, T)."""
    middle = torch.arange(num_steps, device=spans.device) + 0.5
    return (middle >= spans[..., :1]) & (middle < spans[..., 1:])
