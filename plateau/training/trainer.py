"""The trainer of all recipes.

A recipe brings a model and a loss; the trainer owns optimisation, precision, distribution,
checkpoints, resuming, logging and progress. On the CPU a run that was killed and started again
ends with the same parameters, bit for bit, as one that was not.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from plateau.config import UserError
from plateau.data.loading import enough_memory
from plateau.io import write_text
from plateau.ranges import COUNT, above, at_least, below, check_options
from plateau.training import checkpoint
from plateau.training.distributed import Workers
from plateau.training.interfaces import AnyBatch, Loader, Loss, LossFunction, Watch
from plateau.training.monitor import EVERY, Monitor, add_histogram
from plateau.training.schedule import ScheduleOptions, learning_rate
from plateau.training.spec_augment import SpecAugmentOptions, make_spec_augment, masked

STATE = ("model", "options", "optimizer", "scaler", "progress", "sums", "history", "random")


@dataclass(frozen=True)
class TrainingOptions:
    """Optimisation with AdamW.

    Args:
        seed: of initialisation, order of the batches, dropout and SpecAugment
        epochs: passes over the training set, speed-perturbed copies included
        schedule: learning rate over time
        weight_decay: AdamW's, decoupled from the gradient
        betas: AdamW's decay rates of the first and second moment
        clip_grad_norm: gradients longer than this are shortened to it
        precision: fp32, or fp16 or bf16 on a GPU; losses are float32 in any case
        spec_augment: masks on the features
        average_last: the final model is the mean of this many last epochs
        checkpoint_every: batches between two checkpoints within an epoch
        max_skipped: batches with a loss that is not finite are left out; more than this many and
            the training stops
    """

    seed: int = 1
    epochs: int = 30
    schedule: ScheduleOptions = ScheduleOptions()
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.98)
    clip_grad_norm: float = 5.0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    spec_augment: SpecAugmentOptions = SpecAugmentOptions()
    average_last: int = 5
    checkpoint_every: int = 50
    max_skipped: int = 10

    def __post_init__(self) -> None:
        check_options(
            self,
            "training",
            seed=at_least(0, 2**32 - 2**16),  # processes add their numbers; numpy takes 32 bits
            epochs=at_least(1, 10**6),
            weight_decay=at_least(0, 100),
            betas=below(1),
            clip_grad_norm=above(0, 10**9),
            average_last=at_least(1, 10**6),
            checkpoint_every=at_least(1, 10**9),
            max_skipped=COUNT,
        )


@dataclass
class Progress:
    """Where a run is; all of it is in a checkpoint."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches of this epoch that were done or left out
    step: int = 0  # updates of the parameters
    skipped: int = 0  # batches left out since their loss was not finite
    seen: float = 0.0  # of this epoch, by all processes, in the unit of the loader
    train_seconds: float = 0.0  # wall-clock time, over all starts of this run


class Trainer:
    """Trains ``model`` into ``exp_dir``; see `run`."""

    def __init__(
        self,
        model: nn.Module,
        loss_function: LossFunction,
        train: Loader,
        dev: Loader | None,
        options: TrainingOptions,
        exp_dir: Path,
        workers: Workers,
        resolved_options: dict[str, Any],
        watch: Watch | None = None,
        watched: AnyBatch | None = None,
        monitor: Monitor | None = None,
    ):
        """All that a run needs.

        ``resolved_options`` go into the checkpoints as they are. ``watch`` looks at the batch
        ``watched`` after each epoch. ``monitor`` looks at gradients and at the epochs' records.
        """
        self.model = model.to(workers.device)
        self.loss_function = loss_function
        self.train, self.dev = train, dev
        self.options = options
        self.exp_dir = exp_dir
        self.checkpoints = exp_dir / "checkpoints"
        self.workers = workers
        self.resolved_options = resolved_options
        self.watch, self.watched = watch, watched
        self.monitor = monitor or Monitor(self.model)
        self.wrapped = workers.wrap(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=options.betas, weight_decay=options.weight_decay
        )
        # torch 1.13 has it in torch.cuda.amp alone, where torch 2 warns of it.
        scaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)
        self.scaler = scaler(enabled=self._half and options.precision == "fp16")
        self.spec_augment = make_spec_augment(options.spec_augment)
        self.progress = Progress()
        self.sums: Counter[str] = Counter()  # of this epoch's batches
        self.history: list[dict[str, float]] = []  # one record per finished epoch
        self.tensorboard: SummaryWriter | None = None

    def run(self) -> Path:
        """Train all epochs, from the last checkpoint if there is one.

        Returns:
            path of the averaged model, ``checkpoints/averaged.safetensors``

        Raises:
            UserError: more than ``max_skipped`` batches had a loss that was not finite.
        """
        final = self.checkpoints / checkpoint.AVERAGED
        found = checkpoint.newest(self.checkpoints, STATE, self.workers.is_main)
        if found is not None:
            self._resume(*found)
        else:
            self.workers.sum(torch.zeros(1, device=self.workers.device))  # all have looked
            self._save()  # so that there is always one before the last
        del found  # a second copy of the parameters, as long as it is there
        if self.workers.is_main:
            for half_written in self.checkpoints.glob(".tmp*"):  # by a run that was killed
                half_written.unlink()
            purge = self.progress.step or None
            self.tensorboard = SummaryWriter(str(self.exp_dir / "tensorboard"), purge_step=purge)
        while self.progress.epoch < self.options.epochs:
            self._run_epoch()
        # DistributedDataParallel goes before `Workers.close` ends its group: a group that dies with
        # it waits for gloo's threads and has the lock (GIL) that these wait for.
        self.wrapped = self.model
        if self.workers.is_main:
            last = range(self.options.epochs + 1)[-self.options.average_last :]
            paths = [self._epoch_path(epoch) for epoch in last if epoch > 0]
            gone = [path.name for path in paths if not path.exists()]
            if gone:
                paths = [path for path in paths if path.exists()]
                tqdm.write(f"averaged over {len(paths)} epochs; {', '.join(gone)} is not there")
            if not paths:
                raise UserError(
                    f"{self.checkpoints}: {', '.join(gone)} is not there, so there is no model\n"
                    f"train again: rm -r {self.checkpoints}; then start the same ./run.sh again"
                )
            checkpoint.save(self._model_state(checkpoint.average(paths)), final)
            self.tensorboard.close()
        return final

    def _run_epoch(self) -> None:
        progress = self.progress
        self.model.train()
        self.monitor.start_epoch(progress.step, whole=progress.batch == 0)
        batches = self.train.batches(progress.epoch, skip=progress.batch)
        bar = tqdm(
            desc=f"epoch {progress.epoch + 1}/{self.options.epochs}",
            total=round(self.train.total_size),
            initial=round(progress.seen),
            unit=self.train.unit,
            disable=None if self.workers.is_main else True,
            leave=False,
        )
        with bar:
            started = time.monotonic()
            for batch in batches:
                self._run_batch(batch)
                progress.batch += 1
                now = time.monotonic()
                progress.train_seconds, started = progress.train_seconds + now - started, now
                bar.update(round(progress.seen) - bar.n)
                bar.set_postfix(loss=f"{self.sums['loss'] / max(self.sums['tokens'], 1):.3f}")
                if progress.batch % self.options.checkpoint_every == 0:
                    self._save()
        self._finish_epoch()

    def _run_batch(self, batch: AnyBatch) -> None:
        with enough_memory(batch, self.train.memory_option):
            self._learn(batch)

    def _learn(self, batch: AnyBatch) -> None:
        progress = self.progress
        batch = batch.to(self.workers.device)
        loss = self._loss(self.wrapped, self._augment(batch))
        sums = torch.tensor(
            [loss.total.item(), loss.tokens, loss.frames, batch.size, *loss.counts.values()],
            dtype=torch.float64,
            device=self.workers.device,
        )
        total, tokens, frames, size, *counts = self.workers.sum(sums).tolist()
        position = progress.epoch + progress.seen / self.train.total_size
        progress.seen += size
        if not math.isfinite(total):
            terms = [n for n, x in zip(loss.counts, counts, strict=True) if not math.isfinite(x)]
            self._leave_out(batch, total, terms)
            return

        rate = learning_rate(
            self.options.schedule, progress.step + 1, position / self.options.epochs
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        # The processes' gradients are averaged, so each counts its share of all tokens.
        scale = self.workers.world_size / max(tokens, 1.0)
        self.scaler.scale(loss.total * scale).backward()
        self.scaler.unscale_(self.optimizer)
        self.monitor.see_gradients(progress.step + 1, self.tensorboard)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_grad_norm)
        if torch.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # which leaves out an overflow of fp16 itself
            self.scaler.update()
        else:
            self._leave_out(batch, norm.item(), ["gradient"])
            return

        progress.step += 1
        self.sums.update(loss=total, tokens=tokens, frames=frames)
        self.sums.update(dict(zip(loss.counts, counts, strict=True)))
        if self.tensorboard is not None and progress.step % EVERY == 0:
            self.tensorboard.add_scalar("train/loss_per_token", total / tokens, progress.step)
            self.tensorboard.add_scalar("train/grad_norm", norm.item(), progress.step)
            self.tensorboard.add_scalar("train/learning_rate", rate, progress.step)

    def _finish_epoch(self) -> None:
        """Validate, log, and write this epoch's checkpoints."""
        progress = self.progress
        started = time.monotonic()
        record = {"epoch": progress.epoch + 1, "step": progress.step}
        record |= _report("train", self.sums)
        if self.dev is not None:
            record |= _report("dev", self._validate())
        for module in self.model.modules():
            if hasattr(module, "finish_epoch"):  # as of a label prior; the checkpoint has it
                module.finish_epoch()
        if self.workers.is_main:
            self._watch()
        progress.train_seconds += time.monotonic() - started
        record["train_seconds"] = round(progress.train_seconds, 1)
        self.history.append(record)
        progress.epoch, progress.batch, progress.seen = progress.epoch + 1, 0, 0.0
        self.sums.clear()
        if not self.workers.is_main:
            return
        shown = ", ".join(f"{name} {value:.4g}" for name, value in record.items())
        tqdm.write(shown)
        for note in self.monitor.finish_epoch(record):
            tqdm.write(f"note: {note}")
        for name, value in record.items():
            if name not in ("epoch", "step"):
                self.tensorboard.add_scalar(f"epoch/{name}", value, progress.step)
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        write_text(self.exp_dir / "log" / "epochs.jsonl", lines)
        # The model first: what the last checkpoint says is finished must be there to be averaged.
        model = self.model.state_dict()
        checkpoint.save(self._model_state(model), self._epoch_path(progress.epoch))
        self._save()
        self._epoch_path(progress.epoch - self.options.average_last).unlink(missing_ok=True)

    @torch.no_grad()
    def _watch(self) -> None:
        """Put what a model does with a few utterances, always the same, into TensorBoard."""
        if self.watch is None or self.watched is None:
            return
        self.model.eval()
        watched, step = self.watch(self.watched.to(self.workers.device)), self.progress.step
        for name, value in watched.scalars.items():
            self.tensorboard.add_scalar(f"watched/{name}", value, step)
        for name, figure in watched.figures.items():
            self.tensorboard.add_figure(f"watched/{name}", figure, step)
        for name, values in watched.histograms.items():
            add_histogram(self.tensorboard, f"watched/{name}", values, step)
        for note in watched.notes:
            tqdm.write(f"note: {note}")

    @torch.no_grad()
    def _validate(self) -> Counter[str]:
        """The loss on the development set, each process on its part."""
        self.model.eval()
        sums: Counter[str] = Counter()
        for batch in self.dev.batches():
            with enough_memory(batch, self.train.memory_option):
                loss = self._loss(self.model, batch.to(self.workers.device))
            sums.update(loss=loss.total.item(), tokens=loss.tokens, frames=loss.frames)
            sums.update(loss.counts)
        values = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.workers.device)
        return Counter(dict(zip(sums, self.workers.sum(values).tolist(), strict=True)))

    def _loss(self, model: nn.Module, batch: AnyBatch) -> Loss:
        if not self._half:
            return self.loss_function(model, batch)
        dtype = torch.float16 if self.options.precision == "fp16" else torch.bfloat16
        with torch.autocast("cuda", dtype=dtype):
            return self.loss_function(model, batch)

    @property
    def _half(self) -> bool:
        return self.options.precision != "fp32" and self.workers.device.type == "cuda"

    def _augment(self, batch: AnyBatch) -> AnyBatch:
        mask = self.options.spec_augment
        if mask.p == 0 or self.progress.epoch < mask.after_epochs:
            return batch
        # In this process and not in a loading worker: its random state is in the checkpoint.
        return masked(batch, self.spec_augment)

    def _leave_out(self, batch: AnyBatch, value: float, terms: Sequence[str]) -> None:
        """Note a batch whose loss or gradient is not finite; stop if there were too many.

        Args:
            batch: which one.
            value: of its loss or gradient.
            terms: what of it is not finite, where that is known.
        """
        self.progress.skipped += 1
        path = self.exp_dir / "log" / f"nonfinite_batches.{self.workers.rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        where = {"epoch": self.progress.epoch + 1, "batch": self.progress.batch + 1}
        with path.open("a", encoding="utf-8") as file:
            said = {"loss": str(value), "not_finite": list(terms), "utterances": batch.ids}
            file.write(json.dumps({**where, **said}) + "\n")
        if self.progress.skipped > self.options.max_skipped:
            raise UserError(
                f"not finite ({', '.join(terms) or 'loss'}: {value}) in {self.progress.skipped} "
                f"batches; their {batch.things} are in {path}\n"
                "Look at these, lower training.schedule.peak, or raise "
                "training.max_skipped; ./run.sh goes on from the last checkpoint."
            )

    def _save(self) -> None:
        if not self.workers.is_main:
            return
        state = {
            **self._model_state(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": vars(self.progress),
            "sums": dict(self.sums),
            "history": self.history,
            "random": checkpoint.random_state(),
        }
        checkpoint.save(state, self.checkpoints / checkpoint.LAST, keep=True)

    def _resume(self, path: Path, state: dict[str, Any]) -> None:
        checkpoint.restore_model(self.model, state, path)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.progress = Progress(**state["progress"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: not the optimizer or progress that this code and these options make: "
                f"{error}\nto begin again: rm -r {self.checkpoints}; then start ./run.sh again"
            ) from None
        self.sums = Counter(state["sums"])
        self.history = state["history"]
        if self.workers.is_main:
            checkpoint.set_random_state(state["random"])
        else:  # the state is that of the main process; another one for each of the others
            checkpoint.set_seed(self.options.seed + self.workers.rank + self.progress.step)
        if self.workers.is_main:
            done = f"{self.progress.epoch} epochs and {self.progress.batch} batches are done"
            tqdm.write(f"going on from {path}: {done}")

    def _model_state(self, model: dict[str, Tensor]) -> dict[str, Any]:
        return {
            "model": model,
            "options": self.resolved_options,
            "environment": checkpoint.environment(),
        }

    def _epoch_path(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch-{epoch}.safetensors"


def _report(name: str, sums: Counter[str]) -> dict[str, float]:
    """Per-token loss and per-frame counts, from sums over batches."""
    others = [key for key in sums if key not in ("loss", "tokens", "frames")]
    return {
        f"{name}_loss": round(sums["loss"] / max(sums["tokens"], 1), 4),
        **{f"{name}_{key}": round(sums[key] / max(sums["frames"], 1), 4) for key in others},
    }
