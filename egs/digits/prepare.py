"""Scikit-learn's handwritten digits as images of 8 by 8 pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from plateau.config import UserError, cli, load
from plateau.data.sequences import DEV, TEST, TRAIN, About, Sequence, write_corpus

SEED = 1  # of the split, which is the same for everybody


@dataclass(frozen=True)
class DigitsOptions:
    """There is nothing to choose."""


def main(
    output: Path, corpus_dir: Path | None = None, config: Path | None = None, nj: int = 1
) -> None:
    """Write the 1,797 digits that come with scikit-learn: sets train, dev and test.

    Args:
        output: data/digits
        corpus_dir: must not be given, the images are in the package
        config: YAML whose section `corpus` is empty, as there is nothing to choose
        nj: number of parallel processes; one does
    """
    if corpus_dir is not None:
        raise UserError("the corpus digits comes with scikit-learn: leave out --corpus-dir")
    if config is not None:
        load(DigitsOptions, config, section="corpus")
    found = load_digits()
    images = [
        Sequence(f"digit-{number:04d}", grey[None] / 16, text=str(label))  # (1, 64)
        for number, (grey, label) in enumerate(zip(found.data, found.target, strict=True))
    ]
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = np.split(order, [len(order) * 8 // 10, len(order) * 9 // 10])
    write_corpus(
        output,
        About("images", shape=(8, 8)),
        {
            name: [images[i] for i in sorted(part)]
            for name, part in zip((TRAIN, DEV, TEST), parts, strict=True)
        },
    )


if __name__ == "__main__":
    cli(main)
