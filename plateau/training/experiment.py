"""What every recipe's options have in common, and where an experiment keeps its things."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

from plateau.config import T, UserError, load, read_yaml
from plateau.data.corpus import Corpus
from plateau.data.features import FeatureOptions
from plateau.data.loading import LoadingOptions
from plateau.data.tokens import TokenOptions
from plateau.graphs.engines import GraphOptions, use_engine
from plateau.ranges import check_options
from plateau.training.checkpoint import AVERAGED
from plateau.training.trainer import TrainingOptions


@dataclass(frozen=True)
class ExperimentOptions:
    """Options of an experiment, whatever its data and its model; a recipe adds its own.

    ``kind`` says what data it takes, and ``prepared`` which folder of the corpus stage 3 makes, if
    it makes any: ``local/kinds/<kind>.sh`` has the stages 0 to 3.

    Args:
        data_dir: the corpus's folder, ``data/<corpus>``; `run.sh` sets it
        dev_set: the set that training looks at after each epoch; without it, see
            `plateau.data.corpus.Corpus.dev_set`. `run.sh --dev-set` sets it
        test_sets: the sets to decode and align; without them, see
            `plateau.data.corpus.Corpus.test_sets`. `run.sh --test-sets` sets them
        corpus: options of ``egs/<corpus>/prepare.py``
    """

    data_dir: str = ""
    dev_set: str = ""
    test_sets: tuple[str, ...] = ()
    corpus: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = ""
    prepared: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_options(self, "")


@dataclass(frozen=True)
class SpeechOptions(ExperimentOptions):
    """Options of an experiment on transcribed speech; see `ExperimentOptions` too.

    Args:
        features: see `FeatureOptions`
        tokens: see `TokenOptions`
        loading: see `LoadingOptions`
        graphs: see `GraphOptions`
        training: see `TrainingOptions`
    """

    features: FeatureOptions = FeatureOptions()
    tokens: TokenOptions = TokenOptions()
    loading: LoadingOptions = LoadingOptions()
    graphs: GraphOptions = GraphOptions()
    training: TrainingOptions = TrainingOptions()

    kind: ClassVar[str] = "speech"

    @property
    def prepared(self) -> str:
        """The token folder."""
        return self.tokens.lang


def options_class(recipe: str) -> type[ExperimentOptions]:
    """The options of a recipe: ``Options`` in ``<recipe>/options.py``."""
    try:
        return importlib.import_module(f"{recipe}.options").Options
    except ModuleNotFoundError as error:
        if error.name not in (recipe, f"{recipe}.options"):
            raise
        raise UserError(f"--recipe {recipe}: there is no {recipe}/options.py here") from None


def default_config(corpus: str, recipe: str) -> Path:
    """The file that has the options which an experiment starts from, where no other is named."""
    of_corpus = Path("egs", corpus, "conf", f"{recipe}.yaml")
    return of_corpus if of_corpus.exists() else Path(recipe, "conf", "default.yaml")


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
        return self.path / "checkpoints" / AVERAGED

    @property
    def data_dir(self) -> Path:
        """The corpus's folder ``data/<corpus>``, as seen from `root`."""
        if not self.config.exists():
            raise UserError(f"{self.path}: not an experiment: there is no config.yaml")
        return Path(str(read_yaml(self.config).get("data_dir", "")))

    @property
    def corpus(self) -> str:
        """The corpus's name, as `run.sh --corpus` has it; there may be slashes in it."""
        return "/".join(self.data_dir.parts[1:])

    @property
    def root(self) -> Path:
        """The folder that has ``exp/`` and ``data/``; a corpus's name may have slashes."""
        depth = len(self.data_dir.parts) + 1
        path = self.path.resolve()
        if depth < 3 or len(path.parents) <= depth:
            raise UserError(f"{self.path}: not an experiment, which is exp/<corpus>/<recipe>/<exp>")
        return path.parents[depth]

    @property
    def command(self) -> str:
        """The command that does what is left to do for it, in `root`; its options stay."""
        if not self.config.exists():
            return "the same ./run.sh again"
        *_, recipe, name = self.path.resolve().parts
        return f"./run.sh --corpus {quote(self.corpus)} --recipe {recipe} --exp {quote(name)}"

    def decode_dir(self, set_name: str, method: str) -> Path:
        """Where the hypotheses and scores of a set and method are."""
        return self.path / f"decode_{set_name}_{method}"

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

    def defaults(self, cls: type[T]) -> T | None:
        """The options that experiments of its corpus and recipe start from, if a file has them."""
        path = default_config(self.corpus, self.path.resolve().parent.name)
        return load(cls, path) if path.exists() else None

    def options(self, cls: type[T], section: str | None = None) -> T:
        """The options as the run stored them. Graphs are computed by their engine from now on."""
        options = load(cls, self.config, section)
        if isinstance(options, SpeechOptions):
            use_engine(options.graphs)
        return options


def corpus_of(options: SpeechOptions) -> Corpus:
    """The corpus that the options name."""
    return Corpus(Path(options.data_dir), options.dev_set, options.test_sets)


def lang_dir(options: SpeechOptions) -> Path:
    """The token folder that the options name."""
    return Path(options.data_dir) / options.tokens.lang
