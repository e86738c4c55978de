"""What every recipe's options have in common, and where an experiment keeps its things."""

import importlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plateau.config import T, UserError, load
from plateau.data.corpus import Corpus
from plateau.data.features import FeatureOptions
from plateau.data.loading import LoadingOptions
from plateau.data.tokens import TokenOptions
from plateau.training.trainer import TrainingOptions


@dataclass(frozen=True)
class ExperimentOptions:
    """Options of an experiment, whatever its model; a recipe adds its own.

    Args:
        data_dir: the corpus's folder, ``data/<corpus>``; `run.sh` sets it
        corpus: options of ``egs/<corpus>/prepare.py``
        features: see `FeatureOptions`
        tokens: see `TokenOptions`
        loading: see `LoadingOptions`
        training: see `TrainingOptions`
    """

    data_dir: str = ""
    corpus: dict[str, Any] = field(default_factory=dict)
    features: FeatureOptions = FeatureOptions()
    tokens: TokenOptions = TokenOptions()
    loading: LoadingOptions = LoadingOptions()
    training: TrainingOptions = TrainingOptions()


def options_class(recipe: str) -> type[ExperimentOptions]:
    """The options of a recipe: ``Options`` in ``<recipe>/options.py``."""
    try:
        return importlib.import_module(f"{recipe}.options").Options
    except ModuleNotFoundError as error:
        if error.name not in (recipe, f"{recipe}.options"):
            raise
        raise UserError(f"--recipe {recipe}: there is no {recipe}/options.py here") from None


@dataclass(frozen=True)
class Experiment:
    """An experiment's folder ``exp/<corpus>/<recipe>/<exp>``."""

    path: Path

    @property
    def config(self) -> Path:
        """The full resolved options."""
        return self.path / "config.yaml"

    @property
    def final_model(self) -> Path:
        """The checkpoint to decode and align with."""
        return self.path / "checkpoints" / "averaged.pt"

    def decode_dir(self, set_name: str, method: str) -> Path:
        """Where the hypotheses and scores of a set and method are."""
        return self.path / f"decode_{set_name}_{method}"

    def command(self, stage: int) -> str:
        """What does a stage, the later ones even where they are marked as done.

        Not the training: it would start again.
        """
        exp_dir = self.path.resolve()
        recipe_dir = exp_dir.parent
        options = ("--corpus", recipe_dir.parent.name, "--recipe", recipe_dir.name)
        again = ["--force"] if stage > 5 else []
        words = ["./run.sh", *options, "--exp", exp_dir.name, "--stage", str(stage), *again]
        return shlex.join(words)

    def set_aside(self, folders: Iterable[Path]) -> None:
        """Move results that the options do not make any more into a folder ``before-N``."""
        folders = sorted(folders)
        if not folders:
            return
        n = 1
        while (self.path / f"before-{n}").exists():
            n += 1
        aside = self.path / f"before-{n}"
        aside.mkdir()
        for folder in folders:
            folder.rename(aside / folder.name)
        names = ", ".join(folder.name for folder in folders)
        print(f"not among the sets and methods any more, kept in {aside}: {names}")

    def options(self, cls: type[T], section: str | None = None) -> T:
        """The options as the run stored them."""
        return load(cls, self.config, section)


def corpus_of(options: ExperimentOptions) -> Corpus:
    """The corpus that the options name."""
    return Corpus(Path(options.data_dir))


def lang_dir(options: ExperimentOptions) -> Path:
    """The token folder that the options name."""
    return Path(options.data_dir) / options.tokens.lang
