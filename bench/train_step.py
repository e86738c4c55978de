"""Where the time of a training step goes: loading, augmentation, encoder, loss, optimizer.

The trainer itself runs, with a clock at its doors: no copy of its step is measured.
"""

import dataclasses
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conformer_ctc.options import Options
from conformer_ctc.train import build
from plateau.config import UserError, cli
from plateau.data.corpus import TRAIN
from plateau.data.loading import Batch, BatchLoader
from plateau.data.tokens import Tokenizer, read_lang
from plateau.graphs.ctc import ctc_loss
from plateau.machine import machine
from plateau.training.checkpoint import set_seed
from plateau.training.distributed import join
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.interfaces import Loss, LossFunction
from plateau.training.selection import long_enough
from plateau.training.trainer import Trainer

WARM_UP = 3  # steps that do not count: memory is allocated, kernels are chosen
TARGET = 5.0  # percent of a step, for loading and for the loss

LOADING, AUGMENTATION, OPTIMIZER, OTHER = "loading", "augmentation", "optimizer", "other"
ENCODER_FORWARD, ENCODER_BACKWARD = "encoder forward", "encoder backward"
LOSS_FORWARD, LOSS_BACKWARD = "loss forward", "loss backward"
EPOCH_START = "epoch start"  # the wait for an epoch's first batch: its worker has to start
LOSS = (LOSS_FORWARD, LOSS_BACKWARD)
ENCODER = (ENCODER_FORWARD, ENCODER_BACKWARD)
PARTS = (LOADING, AUGMENTATION, *ENCODER, *LOSS, OPTIMIZER, OTHER)


class Clock:
    """Seconds of each part, step by step."""

    def __init__(self, device: torch.device):
        self._device = device
        self._last = time.perf_counter()
        self.steps: list[Counter[str]] = [Counter()]

    def lap(self, part: str) -> None:
        """The time since the last call went to ``part`` of the current step."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.steps[-1][part] += now - self._last
        self._last = now


class TimedLoader:
    """A `BatchLoader` whose first epoch has ``num_steps`` batches; the wait for each is timed."""

    def __init__(self, loader: BatchLoader, clock: Clock, num_steps: int):
        self._loader, self._clock, self._num_steps = loader, clock, num_steps
        self.total_size = loader.total_size
        self.unit, self.memory_option = loader.unit, loader.memory_option
        self.seconds: list[float] = []  # of audio in each batch

    def batches(self, epoch: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The first batches, of as many epochs as it takes."""
        clock = self._clock
        for shuffled in count(epoch):
            clock.lap(OTHER)
            batches, part = self._loader.batches(shuffled), EPOCH_START
            while (batch := next(batches, None)) is not None:
                clock.lap(part)
                self.seconds.append(batch.seconds)
                yield batch
                clock.lap(OTHER)
                if len(self.seconds) == self._num_steps:
                    return
                clock.steps.append(Counter())
                part = LOADING


class TimedLoss:
    """A recipe's loss function that times the encoder, itself, and the gradients of both.

    Args:
        loss_function: the recipe's; it calls ``model`` once
        model: gives log-probabilities and lengths
        keep: number of batches whose log-probabilities, lengths and texts stay in ``kept``
    """

    def __init__(self, loss_function: LossFunction, model: nn.Module, clock: Clock, keep: int):
        self._loss_function, self._clock = loss_function, clock
        self.kept: deque[tuple[Tensor, Tensor, list[str]]] = deque(maxlen=keep)
        self._output: tuple[Tensor, Tensor]
        model.register_forward_pre_hook(lambda *_: clock.lap(LOSS_FORWARD))  # targets
        model.register_forward_hook(self._after_encoder)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of a batch."""
        self._clock.lap(OTHER)
        loss = self._loss_function(model, batch)
        self._clock.lap(LOSS_FORWARD)
        # A tensor's hooks are called when its gradient is known.
        log_probs, lengths = self._output
        loss.total.register_hook(lambda _: self._clock.lap(OTHER))
        log_probs.register_hook(lambda _: self._clock.lap(LOSS_BACKWARD))
        self.kept.append((log_probs.detach(), lengths, batch.texts))
        return loss

    def _after_encoder(
        self, _model: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor]
    ) -> None:
        self._clock.lap(ENCODER_FORWARD)
        self._output = output


def timed(function: Callable, clock: Clock, before: str, after: str) -> Callable:
    """``function``, with what was done before it and itself as two parts of the step."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        clock.lap(before)
        result = function(*args, **kwargs)
        clock.lap(after)
        return result

    return wrapper


@dataclass(frozen=True)
class Prepared:
    """What `train` needs of an experiment."""

    options: Options
    tokenizer: Tokenizer
    model: nn.Module
    loss_function: LossFunction
    loader: BatchLoader


def prepare(exp_dir: Path, directory: Path) -> Prepared:
    """Read the experiment's options and data; ``directory`` is for the list of what is left out.

    Raises:
        UserError: they are not there.
    """
    try:
        options = Experiment(exp_dir).options(Options)
        tokenizer = read_lang(lang_dir(options))
        set_seed(options.training.seed)
        recipe = build(options)
        cuts = corpus_of(options).cuts(TRAIN)
    except (UserError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"run ./run.sh --stop-stage 4 first, for {exp_dir} ({reason})") from None
    left_out = directory / "left_out.txt"
    cuts = long_enough(cuts, tokenizer, recipe.model.output_lengths, recipe.frames_needed, left_out)
    seed = options.training.seed
    loader = BatchLoader(cuts, options.loading, options.features, shuffle=True, seed=seed)
    return Prepared(options, tokenizer, recipe.model, recipe.loss_function, loader)


def train(
    prepared: Prepared, num_steps: int, keep: int, directory: Path
) -> tuple[Clock, TimedLoader, TimedLoss]:
    """Run the trainer for some steps, with its files in ``directory``."""
    workers = join()
    clock = Clock(workers.device)
    loader = TimedLoader(prepared.loader, clock, num_steps)
    loss = TimedLoss(prepared.loss_function, prepared.model, clock, keep)
    options = dataclasses.replace(
        prepared.options.training, epochs=1, average_last=1, checkpoint_every=num_steps + 1
    )
    trainer = Trainer(prepared.model, loss, loader, None, options, directory, workers, {})
    trainer.spec_augment = timed(trainer.spec_augment, clock, OTHER, AUGMENTATION)
    # `unscale_` comes right after the gradients, clipping before the optimizer's step.
    trainer.scaler.unscale_ = timed(trainer.scaler.unscale_, clock, ENCODER_BACKWARD, OPTIMIZER)
    trainer.optimizer.step = timed(trainer.optimizer.step, clock, OPTIMIZER, OPTIMIZER)
    trainer.run()
    return clock, loader, loss


def print_shares(steps: list[Counter[str]], seconds: list[float], total_seconds: float) -> None:
    """The table of parts, and what the start of an epoch costs."""
    starts = [step[EPOCH_START] for step in steps if EPOCH_START in step]
    first, steps, seconds = starts[0], steps[WARM_UP:], seconds[WARM_UP:]
    whole = sum(sum(step.values()) - step[EPOCH_START] for step in steps)

    def row(name: str, parts: tuple[str, ...], target: float | None = None) -> None:
        times = [sum(step[part] for part in parts) for step in steps]
        share = 100 * sum(times) / whole
        verdict = ""
        if target is not None:
            verdict = f"  ≤ {target:g} %: {'met' if share <= target else 'not met'}"
        print(f"{name:18}{1000 * median(times):10.1f} ms{share:8.1f} %{verdict}")

    print(f"{'':18}{'median':>13}{'share':>10}  target")
    row(LOADING, (LOADING,), TARGET)
    row("loss", LOSS, TARGET)
    for part in LOSS:
        row(f"  {part.removeprefix('loss ')}", (part,))
    row("encoder", ENCODER)
    for part in ENCODER:
        row(f"  {part.removeprefix('encoder ')}", (part,))
    for part in (AUGMENTATION, OPTIMIZER, OTHER):
        row(part, (part,))
    row("step", PARTS)
    speed = sum(seconds) / whole
    print(f"\n{speed:.0f} s of audio per second; {sum(seconds) / len(seconds):.0f} s a batch")
    epoch = total_seconds / speed
    print(
        f"start of an epoch: {first:.2f} s until the first batch, and {epoch:.1f} s of steps: "
        f"{100 * first / (first + epoch):.1f} % of an epoch"
    )


def time_loss(loss: Callable[[Tensor], Tensor], log_probs: Tensor) -> tuple[float, float]:
    """Seconds for a loss and its gradient, and the loss."""
    log_probs = log_probs.detach().requires_grad_()
    clock = Clock(log_probs.device)
    total = loss(log_probs)
    total.backward()
    clock.lap("loss")
    return clock.steps[0]["loss"], total.item()


def print_peer(tokenizer: Tokenizer, kept: Iterable[tuple[Tensor, Tensor, list[str]]]) -> None:
    """The loss against torch's, on the same log-probabilities, forward and backward."""
    ours, theirs, differences = [], [], []
    for log_probs, lengths, texts in kept:
        targets = [tokenizer.encode(text) for text in texts]

        def graph_loss(x: Tensor, lengths: Tensor = lengths, targets: Any = targets) -> Tensor:
            return ctc_loss(x, lengths, targets).sum()

        def torch_loss(x: Tensor, lengths: Tensor = lengths, targets: Any = targets) -> Tensor:
            flat = torch.tensor([label for target in targets for label in target], device=x.device)
            target_lengths = torch.tensor([len(target) for target in targets], device=x.device)
            return F.ctc_loss(x.transpose(0, 1), flat, lengths, target_lengths, reduction="sum")

        seconds, loss = time_loss(graph_loss, log_probs)
        peer_seconds, peer_loss = time_loss(torch_loss, log_probs)
        ours.append(seconds)
        theirs.append(peer_seconds)
        differences.append(abs(loss - peer_loss) / abs(peer_loss))
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"loss with its gradient, {len(ours)} batches: graphs {1000 * median(ours):.1f} ms, "
        f"torch's ctc_loss {1000 * median(theirs):.1f} ms, ratio {ratio:.2f}; "
        f"losses differ by up to {max(differences):.0e} of their value"
    )


def main(exp_dir: Path, steps: int = 20, repetitions: int = 5) -> None:
    """Print the share of each part of a training step.

    Args:
        exp_dir: the experiment's folder; nothing is written there
        steps: how many to measure, after a few to warm up
        repetitions: batches on which the loss is compared with torch's
    """
    if steps < 1 or repetitions < 1:
        raise UserError("--steps and --repetitions must be at least 1")
    started_on = machine()
    with tempfile.TemporaryDirectory() as directory:
        prepared = prepare(exp_dir, Path(directory))
        clock, loader, loss = train(prepared, WARM_UP + steps, repetitions, Path(directory))
    print(started_on)
    kind, seconds = prepared.options.encoder.kind, prepared.options.loading.max_duration
    print(
        f"{exp_dir}: {kind}, batches of {seconds:g} s, {steps} steps after {WARM_UP} to warm up\n"
    )
    print_shares(clock.steps, loader.seconds, loader.total_size)
    print_peer(prepared.tokenizer, loss.kept)


if __name__ == "__main__":
    cli(main)
