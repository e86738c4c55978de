"""Which sets of a corpus are looked at while training, decoded and aligned; `run.sh` asks it."""

import sys
from dataclasses import dataclass
from pathlib import Path

from plateau.config import UserError, cli, read_yaml, resolve
from plateau.data.corpus import TRAIN, Corpus


@dataclass(frozen=True)
class Named:
    """The options of `plateau.training.experiment.ExperimentOptions` that name sets."""

    dev_set: str = ""
    test_sets: tuple[str, ...] = ()


def main(data_dir: Path, config: Path, mark: str = "wav.scp") -> None:
    """Print a line with the development set, empty where there is none, and one with the test sets.

    Sets that are for nothing are told on stderr.

    Args:
        data_dir: the corpus's folder, data/NAME, or one below it
        config: the experiment's config.yaml
        mark: the file that the folder of a set has
    """
    values = read_yaml(config)
    named = {name: values[name] for name in ("dev_set", "test_sets") if name in values}
    try:
        options = resolve(Named, named)
    except UserError as error:
        raise UserError(f"{config}: {error}") from None
    corpus = Corpus(data_dir, options.dev_set, options.test_sets, mark)
    corpus.check_train()
    dev, tests = corpus.dev_set(), corpus.test_sets()
    print(dev, " ".join(tests), sep="\n")
    if unused := corpus.unused_sets():
        print(
            f"{data_dir}: neither trained on ({TRAIN}) nor decoded ({' '.join(tests) or 'none'}): "
            f"{' '.join(unused)}; to decode other sets: --test-sets '{' '.join(tests + unused)}'",
            file=sys.stderr,
        )


if __name__ == "__main__":
    cli(main)
