"""Windows of a set of a corpus, by its own times of words or by those that stage 7 found."""

from dataclasses import replace
from pathlib import Path

from plateau.data.corpus import Corpus
from plateau.data.windows import WindowOptions, Windows
from plateau.decoding.files import Interval, read_ctm
from plateau.errors import UserError


def windows_of(
    corpus: Corpus, set_name: str, options: WindowOptions, word_stride: int = 0
) -> Windows:
    """The windows of a set.

    Args:
        corpus: with features.
        set_name: of the corpus.
        options: see `WindowOptions`.
        word_stride: in place of that of the options, if it is not 0.

    Raises:
        UserError: words have no times.
    """
    options = replace(options, word_stride=word_stride or options.word_stride)
    times = _aligned(Path(options.alignment), set_name) if options.alignment else None
    return Windows(corpus.cuts(set_name), options, times, set_name)


def _aligned(exp_dir: Path, set_name: str) -> dict[str, tuple[Interval, ...]]:
    """The words of a set with the times that stage 7 of an experiment found."""
    path = exp_dir / f"align_{set_name}" / "words.ctm"
    if not path.exists():
        raise UserError(
            f"window.alignment: {path}: no such file; align the set there: python "
            f"RECIPE/align.py {exp_dir} --sets {set_name}"
        )
    return read_ctm(path)
