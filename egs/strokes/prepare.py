"""Make the default corpus of vrnn: lines of handwriting in train, dev and test."""

import random
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from writers import make_writer, write_line

from plateau.config import UserError, cli, load
from plateau.data.sequences import DEV, TEST, TRAIN, About, Sequence, write_corpus
from plateau.data.strokes import FIELDS, to_offsets
from plateau.ranges import COUNT, at_least, check_options

sys.path.append(str(Path(__file__).resolve().parents[1] / "espeak"))
from text import WORDS, SentenceMaker  # espeak's sentences

CHARACTERS = (15, 22)  # fewest and most in a line
NAMES = {
    word for kind in ("name", "surname", "city", "day", "month") for word in WORDS[kind]
}  # with a capital


@dataclass(frozen=True)
class StrokesOptions:
    """Size and randomness of the corpus.

    Args:
        lines: to train on
        dev_lines: to look at while training
        test_lines: of writers of whom there is nothing else
        lines_per_writer: lines of each writer
        seed: every seed gives another corpus, the same one each time
    """

    lines: int = 2000
    dev_lines: int = 200
    test_lines: int = 200
    lines_per_writer: int = 20
    seed: int = 1

    def __post_init__(self) -> None:
        size = at_least(1, 1_000_000)
        check_options(
            self,
            "corpus",
            lines=size,
            dev_lines=size,
            test_lines=size,
            lines_per_writer=size,
            seed=COUNT,
        )


def texts(rng: random.Random) -> Iterator[str]:
    """Endless lines of text, each there once: sentences, or parts of them that fit into a line."""
    shortest, longest = CHARACTERS
    seen = set()
    for sentence in SentenceMaker(rng, "train"):
        words = sentence.lower().split()
        words = [w.capitalize() if n == 0 or w in NAMES else w for n, w in enumerate(words)]
        for line in textwrap.wrap(" ".join(words), longest):
            if len(line) >= shortest and line not in seen:
                seen.add(line)
                yield line


def make_set(name: str, size: int, options: StrokesOptions, lines: Iterator[str]) -> list[Sequence]:
    """Have writers of this set's own write ``size`` lines."""
    made = []
    for number in range(size):
        person, line = divmod(number, options.lines_per_writer)
        writer = make_writer(f"{name}{person:04d}", options.seed)
        id = f"{writer.name}-{line:04d}"
        text = next(lines)
        strokes = write_line(text, writer, random.Random(f"{options.seed} {id}"))
        made.append(Sequence(id, to_offsets(strokes), writer.name, text))
    return made


def main(
    output: Path,
    corpus_dir: Path | None = None,
    config: Path | None = None,
    lines: int | None = None,
    seed: int | None = None,
    nj: int = 1,
) -> None:
    """Make lines of handwriting in single-stroke fonts: sets train, dev and test.

    Args:
        output: data/strokes
        corpus_dir: must not be given, the handwriting is made here
        config: YAML with a section `corpus` of these options: lines, dev_lines, test_lines,
            lines_per_writer, seed
        lines: to train on (default 2000)
        seed: of texts and writers (default 1)
        nj: number of parallel processes; one does
    """
    if corpus_dir is not None:
        raise UserError("the corpus strokes is made here: leave out --corpus-dir")
    options = StrokesOptions() if config is None else load(StrokesOptions, config, section="corpus")
    given = {name: v for name, v in (("lines", lines), ("seed", seed)) if v is not None}
    options = replace(options, **given)
    # in this order, so that more lines to train on do not change what is tested
    sizes = {TEST: options.test_lines, DEV: options.dev_lines, TRAIN: options.lines}
    lines_of_text = texts(random.Random(f"{options.seed} texts"))
    sets = {name: make_set(name, size, options, lines_of_text) for name, size in sizes.items()}
    write_corpus(output, About("strokes", FIELDS), sets)


if __name__ == "__main__":
    cli(main)
