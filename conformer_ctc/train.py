"""Stage 5: train an encoder with CTC.

`python conformer_ctc/train.py exp/<corpus>/conformer_ctc/<exp>` trains what its config.yaml says;
with `python utils/torchrun.py --standalone --nproc_per_node N` in place of `python`, on N GPUs.
"""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from conformer_ctc.options import Options
from plateau.config import cli
from plateau.data.corpus import DEV, TRAIN
from plateau.data.features import load_statistics
from plateau.data.loading import Batch, BatchLoader
from plateau.data.tokens import BLANK_ID, Tokenizer, read_lang
from plateau.graphs.ctc import ctc_loss
from plateau.models.ctc import CtcModel
from plateau.training.checkpoint import set_seed
from plateau.training.distributed import join
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.selection import long_enough
from plateau.training.trainer import Loss, LossFunction, Trainer


def make_loss(tokenizer: Tokenizer) -> LossFunction:
    """CTC in nats, summed over the batch, and how many frames say blank."""

    def loss_function(model: nn.Module, batch: Batch) -> Loss:
        targets = [tokenizer.encode(text) for text in batch.texts]
        log_probs, lengths = model(batch.features, batch.lengths)  # (N, T', V), (N,)
        total = ctc_loss(log_probs, lengths, targets).sum()
        within = torch.arange(log_probs.shape[1], device=lengths.device) < lengths[:, None]
        blank = (log_probs.argmax(dim=2) == BLANK_ID) & within  # (N, T')
        return Loss(
            total=total,
            tokens=sum(map(len, targets)),
            counts={"blank_fraction": float(blank.sum())},
            frames=int(lengths.sum()),
        )

    return loss_function


def build(options: Options) -> tuple[CtcModel, LossFunction]:
    """The recipe: its untrained model, and its loss."""
    tokenizer = read_lang(lang_dir(options))
    model = CtcModel(options.features.num_mel_bins, len(tokenizer.tokens), options.encoder)
    model.norm.set_statistics(*load_statistics(corpus_of(options).statistics))
    return model, make_loss(tokenizer)


def main(exp_dir: Path) -> None:
    """Train an experiment, or go on with it.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    options = Experiment(exp_dir).options(Options)
    corpus = corpus_of(options)
    tokenizer = read_lang(lang_dir(options))
    workers = join()
    set_seed(options.training.seed)
    model, loss_function = build(options)
    if not workers.is_main:  # the same model (torch sees to it), but not the same dropout
        set_seed(options.training.seed + workers.rank)

    loaders = {}
    for set_name in (TRAIN, DEV):
        if set_name not in corpus.sets():
            continue  # a corpus without a development set trains without looking at one
        left_out = exp_dir / "log" / f"left_out_{set_name}.txt"
        loaders[set_name] = BatchLoader(
            long_enough(corpus.cuts(set_name), tokenizer, model.output_lengths, left_out),
            options.loading,
            options.features,
            shuffle=set_name == TRAIN,
            seed=options.training.seed,
            rank=workers.rank,
            world_size=workers.world_size,
        )
    if workers.is_main:
        parameters = sum(p.numel() for p in model.parameters())
        hours = loaders[TRAIN].total_seconds / 3600
        print(f"{parameters / 1e6:.2f} M parameters, {hours:.2f} h of training speech an epoch")
    trainer = Trainer(
        model,
        loss_function,
        loaders[TRAIN],
        loaders.get(DEV),
        options.training,
        exp_dir,
        workers,
        dataclasses.asdict(options),
    )
    trainer.run()
    workers.close()


if __name__ == "__main__":
    cli(main)
