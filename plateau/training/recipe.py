"""Training as every recipe does it: from an experiment's options to its final model."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lhotse import CutSet
from torch import nn

from plateau.config import T, resolve
from plateau.data.corpus import TRAIN
from plateau.data.loading import BatchLoader, load_batch
from plateau.data.tokens import read_lang
from plateau.training import checkpoint
from plateau.training.checkpoint import set_seed
from plateau.training.distributed import Workers, join
from plateau.training.experiment import (
    Experiment,
    ExperimentOptions,
    SpeechOptions,
    corpus_of,
    lang_dir,
)
from plateau.training.interfaces import AnyBatch, Loader, LossFunction, Watch
from plateau.training.monitor import Baseline, Monitor
from plateau.training.selection import long_enough
from plateau.training.trainer import Trainer

WATCHED = 2  # utterances that TensorBoard shows


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a recipe brings to the trainer: ``build(options)`` in ``<recipe>/train.py`` makes it.

    Args:
        model: untrained. For speech, ``model.output_lengths`` tells the frames of its encoder's
            output.
        loss_function: of a batch.
        frames_needed: of speech: the fewest frames of the encoder's output that an alignment of a
            transcript has, which is given as the tokens of each word.
        check: sees that the loss can take these utterances, or raises `UserError`.
        check_loss: sees that the losses of perfect and of uniform outputs are what they must be for
            these texts, or raises `UserError`.
        watch: what TensorBoard shows, after each epoch, of the first utterances of the development
            set, or of the training set where there is none.
        baselines: figures of a model that hears nothing; an epoch that ends at one gets a note.
        idle: names, or their beginnings, of parameters that the loss does not use.
        all_from: the step of training from which on the loss uses all others.
    """

    model: nn.Module
    loss_function: LossFunction
    frames_needed: Callable[[Sequence[Sequence[int]]], int] | None = None
    check: Callable[[CutSet], None] = lambda cuts: None
    check_loss: Callable[[Sequence[str]], None] = lambda texts: None
    watch: Watch | None = None
    baselines: Sequence[Baseline] = ()
    idle: tuple[str, ...] = ()
    all_from: int = 0


def load_final(
    experiment: Experiment, options_class: type[T], build_model: Callable[[T], nn.Module]
) -> tuple[T, nn.Module]:
    """The options that an experiment was trained with, and its final model, ready for use.

    What the model is comes from the run: options that changed afterwards do not matter, but for
    which sets are decoded, and how they are loaded.

    Raises:
        UserError: it is not trained, or was with other code.
    """
    path = experiment.final_model
    advice = f"make it (again): rm -f {path}; {experiment.command}"
    state = checkpoint.load(path, ["model", "options"], advice)
    options = resolve(options_class, state["options"])
    if experiment.config.exists():
        now = experiment.options(options_class)
        options = dataclasses.replace(
            options, dev_set=now.dev_set, test_sets=now.test_sets, loading=now.loading
        )
    model = build_model(options)
    checkpoint.restore_model(model, state, experiment.final_model)
    return options, model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def build_seeded(
    options: ExperimentOptions, build: Callable[[T], Recipe], workers: Workers
) -> Recipe:
    """An untrained recipe: the same model in all processes, but not the same dropout."""
    set_seed(options.training.seed)
    recipe = build(options)
    if not workers.is_main:
        set_seed(options.training.seed + workers.rank)
    return recipe


def train(exp_dir: Path, options: SpeechOptions, build: Callable[[SpeechOptions], Recipe]) -> None:
    """Train an experiment on speech, or go on with it; in all processes of `torchrun`."""
    corpus = corpus_of(options)
    tokenizer = read_lang(lang_dir(options))
    workers = join()
    recipe = build_seeded(options, build, workers)

    dev = corpus.dev_set()  # there may be none
    loaders = {}
    for set_name in filter(None, (TRAIN, dev)):
        cuts = long_enough(
            corpus.cuts(set_name),
            tokenizer,
            recipe.model.output_lengths,
            recipe.frames_needed,
            exp_dir / "log" / f"left_out_{set_name}.txt",
        )
        if set_name == (dev or TRAIN):
            watched = cuts.subset(first=min(WATCHED, len(cuts)))
        loaders[set_name] = BatchLoader(
            cuts,
            options.loading,
            options.features,
            shuffle=set_name == TRAIN,
            seed=options.training.seed,
            rank=workers.rank,
            world_size=workers.world_size,
        )
    hours = loaders[TRAIN].total_size / 3600
    fit(
        exp_dir,
        options,
        recipe,
        (loaders[TRAIN], f"{hours:.2f} h of training speech"),
        loaders.get(dev),
        load_batch(watched, options.features),
        workers,
    )


def fit(
    exp_dir: Path,
    options: ExperimentOptions,
    recipe: Recipe,
    train: tuple[Loader, str],
    dev: Loader | None,
    watched: AnyBatch,
    workers: Workers,
) -> None:
    """Train a recipe on whatever its loaders give, or go on with it; then leave the workers.

    Args:
        exp_dir: the experiment's folder.
        options: they go into the checkpoints.
        recipe: made by `build_seeded`.
        train: loader of the training set, and how much that is, in words.
        dev: loader of the development set, if there is one.
        watched: the batch that TensorBoard shows.
        workers: of which this process is one.
    """
    loader, amount = train
    if workers.is_main:
        parameters = sum(p.numel() for p in recipe.model.parameters())
        print(f"{parameters / 1e6:.2f} M parameters, {amount} an epoch")
    trainer = Trainer(
        recipe.model,
        recipe.loss_function,
        loader,
        dev,
        options.training,
        exp_dir,
        workers,
        dataclasses.asdict(options),
        recipe.watch,
        watched,
        Monitor(recipe.model, recipe.baselines, recipe.idle, recipe.all_from),
    )
    trainer.run()
    workers.close()
