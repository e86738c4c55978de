"""Training as every recipe does it: from an experiment's options to its final model."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from lhotse import CutSet
from torch import nn

from plateau.config import T, resolve
from plateau.data.corpus import TRAIN
from plateau.data.loading import BatchLoader, load_batch
from plateau.data.tokens import read_lang
from plateau.graphs.engines import engine_name
from plateau.training import checkpoint
from plateau.training.checkpoint import set_seed
from plateau.training.distributed import join
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


def train(exp_dir: Path, options: SpeechOptions, build: Callable[[SpeechOptions], Recipe]) -> None:
    """Train an experiment on speech, or go on with it; in all processes of `torchrun`."""
    corpus = corpus_of(options)
    tokenizer = read_lang(lang_dir(options))

    def load(set_name: str, recipe: Recipe, **order: int) -> tuple[Loader, Callable[[], AnyBatch]]:
        cuts = long_enough(
            corpus.cuts(set_name),
            tokenizer,
            recipe.model.output_lengths,
            recipe.frames_needed,
            exp_dir / "log" / f"left_out_{set_name}.txt",
        )
        shuffle = set_name == TRAIN
        if shuffle and order["rank"] == 0:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            print(f"graphs are computed by the engine {engine_name(device)}")
        loader = BatchLoader(cuts, options.loading, options.features, shuffle=shuffle, **order)
        first = cuts.subset(first=min(WATCHED, len(cuts)))
        return loader, partial(load_batch, first, options.features)

    fit(exp_dir, options, build, corpus.dev_set(), load)


def fit(
    exp_dir: Path,
    options: ExperimentOptions,
    build: Callable[[T], Recipe],
    dev: str,
    load: Callable[..., tuple[Loader, Callable[[], AnyBatch]]],
) -> None:
    """Train an experiment on whatever its loaders give, or go on with it; in all processes.

    Args:
        exp_dir: the experiment's folder.
        options: they go into the checkpoints.
        build: makes the untrained recipe; all processes get the same model, each its own dropout.
        dev: the development set; "": there is none.
        load: given a set's name, the recipe, and a loader's ``seed``, ``rank`` and ``world_size``:
            the set's loader, and a function that loads the batch of the set that TensorBoard shows.
    """
    workers = join()
    seed = options.training.seed
    set_seed(seed)
    recipe = build(options)
    if not workers.is_main:
        set_seed(seed + workers.rank)
    loaders, load_watched = {}, None
    for name in filter(None, (TRAIN, dev)):
        order = {"seed": seed, "rank": workers.rank, "world_size": workers.world_size}
        loaders[name], load_watched = load(name, recipe, **order)
    if workers.is_main:
        parameters = sum(p.numel() for p in recipe.model.parameters())
        size, unit = loaders[TRAIN].total_size, loaders[TRAIN].unit
        amount = f"{size / 3600:.2f} h of training speech" if unit == "s" else f"{size:.0f}{unit}"
        print(f"{parameters / 1e6:.2f} M parameters, {amount} an epoch")
    trainer = Trainer(
        recipe.model,
        recipe.loss_function,
        loaders[TRAIN],
        loaders.get(dev),
        options.training,
        exp_dir,
        workers,
        dataclasses.asdict(options),
        recipe.watch,
        load_watched(),
        Monitor(recipe.model, recipe.baselines, recipe.idle, recipe.all_from),
    )
    trainer.run()
    workers.close()
