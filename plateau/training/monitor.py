"""What a training shows beside its loss: which parts learn, and whether anything is heard."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

EVERY = 10  # steps between two scalars


@dataclass(frozen=True)
class Baseline:
    """What a figure of an epoch is where the model has learnt nothing of what it should hear.

    Args:
        figure: its name in the epoch's record, without ``train_``; ``loss`` is in nats a token
        value: of such a model
        what: the value is, in words
        advice: what it means, and what to try
        tolerance: a figure that differs by this share of the value, or less, is at it
        patience: epochs in a row that it is there before that is told; some are as they must be
    """

    figure: str
    value: float
    what: str
    advice: str
    tolerance: float = 0.01
    patience: int = 1

    def holds(self, figure: float | None) -> bool:
        """Whether a figure is at it."""
        if figure is None:
            return False
        return abs(figure - self.value) <= self.tolerance * abs(self.value)


def nothing_but_blank(figure: str) -> Baseline:
    """Of CTC: the likeliest label of every frame is blank.

    No loss tells it: that of a model that is sure of blank is infinite, and one that is not quite
    sure has any loss, by how long utterances are.

    Args:
        figure: the share of frames that say blank
    """
    advice = (
        "no token is heard; try masks later (training.spec_augment.after_epochs), plain CTC first "
        "(loss.after_steps), smaller tokens (tokens.kind=char), more steps (loading.max_duration), "
        "or shorter frames"
    )
    return Baseline(figure, 1.0, "nothing but blank", advice, tolerance=0.001, patience=3)


class Monitor:
    """Looks at gradients while an epoch goes on, and at its record afterwards.

    Args:
        model: that is trained.
        baselines: which its figures should leave behind.
        idle: names, or their beginnings, of parameters that the loss does not use.
        all_from: the step from which on the loss uses all others.
    """

    def __init__(
        self,
        model: nn.Module,
        baselines: Sequence[Baseline] = (),
        idle: tuple[str, ...] = (),
        all_from: int = 0,
    ) -> None:
        self.baselines, self.all_from = baselines, all_from
        self._epochs: Counter[Baseline] = Counter()  # in a row, at each
        self._parts: dict[str, list[nn.Parameter]] = defaultdict(list)
        self._used: dict[str, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self._parts[part_of(name)].append(parameter)
                if not name.startswith(idle):
                    self._used[name] = parameter
        # Parameters without any gradient so far; None while nobody looks.
        self._silent: dict[str, nn.Parameter] | None = None
        self._looked = False

    def start_epoch(self, step: int, whole: bool) -> None:
        """Told before an epoch's first batch, or before what is left of it; ``step`` from 0."""
        looks = whole and step >= self.all_from and not self._looked
        self._silent = dict(self._used) if looks else None

    def see_gradients(self, step: int, tensorboard: SummaryWriter | None) -> None:
        """Look at the gradients of a step, from 1, before they are clipped."""
        if self._silent:  # after the first step there is hardly any left to look at
            self._silent = {n: p for n, p in self._silent.items() if is_silent(p)}
        if tensorboard is not None and step % EVERY == 0:
            for part, norm in self.norms().items():
                tensorboard.add_scalar(f"gradients/{part}", norm, step)

    def norms(self) -> dict[str, float]:
        """Euclidean norm of the gradient of each part of the model, see `part_of`."""
        found = {
            part: torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
            for part, parameters in self._parts.items()
            if any(p.grad is not None for p in parameters)
        }
        if not found:
            return {}
        return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))

    def finish_epoch(self, record: Mapping[str, float]) -> list[str]:
        """What is worth a note of an epoch that is over."""
        notes = [self._at(baseline, record) for baseline in self.baselines]
        if self._silent is not None:
            notes.append(silence(self._silent))
            self._silent, self._looked = None, True
        return [note for note in notes if note]

    def _at(self, baseline: Baseline, record: Mapping[str, float]) -> str:
        """What to say of a figure that is at its baseline; "" where it is not."""
        name = f"train_{baseline.figure}"
        if not baseline.holds(record.get(name)):
            self._epochs[baseline] = 0
            return ""
        self._epochs[baseline] += 1
        epochs, where = self._epochs[baseline], f"at {baseline.what} ({baseline.value:.4g})"
        if epochs < baseline.patience:
            return ""
        if epochs > baseline.patience:
            return f"{name} is still {where}, for {epochs} epochs"
        return f"{name} is {record[name]:.4g}, {where}: {baseline.advice}"


def part_of(name: str) -> str:
    """The part of a model that a parameter is of: ``encoder.blocks.3``, ``joiner.output`` …"""
    module = name.split(".")[:-1] or [name]
    return ".".join(module[: 3 if len(module) > 2 and module[2].isdecimal() else 2])


def is_silent(parameter: nn.Parameter) -> bool:
    """Whether a parameter has no gradient, or one that is zero."""
    return parameter.grad is None or not parameter.grad.any()


def silence(names: Sequence[str] | Mapping[str, nn.Parameter]) -> str:
    """What to say of parameters without gradient; "" where there are none."""
    if not names:
        return ""
    parts = list(dict.fromkeys(part_of(name) for name in names))
    shown = ", ".join(parts[:6]) + (f" and {len(parts) - 6} more parts" if len(parts) > 6 else "")
    return (
        f"{len(names)} parameters had no gradient, or only zeros, in any step: of {shown}; look "
        f"for what cuts them off (detach, no_grad, a part without use), e.g. {next(iter(names))}"
    )


def add_histogram(writer: SummaryWriter, tag: str, values: Tensor, step: int) -> None:
    """As the writer's `add_histogram`, which in torch 1.13 fails with newer numpy."""
    values = values.cpu().numpy()
    counts, edges = np.histogram(values, bins=64)
    writer.add_histogram_raw(
        tag,
        min=values.min(),
        max=values.max(),
        num=values.size,
        sum=values.sum(),
        sum_squares=np.square(values).sum(),
        bucket_limits=edges[1:],
        bucket_counts=counts,
        global_step=step,
    )
