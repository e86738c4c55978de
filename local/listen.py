"""Write a word of an utterance as a WAV file, to hear whether it is where it is said to be."""

from collections.abc import Sequence
from pathlib import Path

from plateau.alignment.measures import true_times
from plateau.config import UserError, cli
from plateau.data.corpus import Corpus
from plateau.decoding.files import Interval, read_ctm
from plateau.io import file_name, replacing
from plateau.report.audio import load_samples, sample_range, wav
from plateau.training.experiment import Experiment, corpus_of, options_class


def set_of(corpus: Corpus, utterance: str) -> str:
    """The set that has an utterance.

    Raises:
        UserError: none has it.
    """
    for name in [*corpus.test_sets(), *corpus.sets()]:
        if any(supervision.id == utterance for supervision in corpus.supervisions(name)):
            return name
    raise UserError(f"{corpus.root}: no set has an utterance {utterance}")


def words_of(
    exp_dir: Path, corpus: Corpus, set_name: str, utterance: str
) -> tuple[str, Sequence[Interval]]:
    """Whether an utterance's times are true or aligned, and its words; true ones go first."""
    if true := true_times(corpus, set_name).get(utterance):
        return "true", true
    aligned = read_ctm(exp_dir / f"align_{set_name}" / "words.ctm")
    return "aligned", aligned.get(utterance, ())


def main(
    exp_dir: Path, utterance: str, word: int = 0, set: str = "", out: Path | None = None
) -> None:
    """Write a word's samples: of its true time where that is known, else of the aligned one.

    Args:
        exp_dir: the experiment's folder
        utterance: its id
        word: number of the word, from 1; 0: the whole utterance
        set: which set the utterance is of; without it, it is looked for
        out: the file; without it, one in the experiment's folder report/
    """
    options = Experiment(exp_dir).options(options_class(exp_dir.resolve().parent.name))
    corpus = corpus_of(options)
    set_name = set or set_of(corpus, utterance)
    cut = next((cut for cut in corpus.cuts(set_name) if cut.id == utterance), None)
    if cut is None:
        raise UserError(f"{corpus.manifest('cuts', set_name)}: no utterance {utterance}")
    samples = load_samples(cut)
    kind, interval = "whole", Interval(0.0, len(samples) / cut.sampling_rate, utterance)
    if word:
        kind, words = words_of(exp_dir, corpus, set_name, utterance)
        if not 1 <= word <= len(words):
            raise UserError(f"--word {word}: {utterance} has {len(words)} {kind} words")
        interval = words[word - 1]
    first, end = sample_range(interval, cut.sampling_rate, len(samples))
    if first == end:
        raise UserError(f"{utterance}, word {word}: at {interval.start:.3f} s there is no audio")
    name = file_name(utterance, f"_word-{word}.wav")
    out = out or exp_dir / "report" / name
    with replacing(out) as temporary:
        temporary.write_bytes(wav(samples[first:end], cut.sampling_rate))
    print(f"{out}: {interval.label}, {kind}, {interval.start:.3f} to {interval.end:.3f} s")


if __name__ == "__main__":
    cli(main)
