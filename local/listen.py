"""Write a word of an utterance as a WAV file, to hear whether it is where it is said to be.

Or a window of words (`plateau.data.windows`), to hear whether all of them are in it.
"""

from collections.abc import Sequence
from pathlib import Path

from plateau.alignment.measures import true_times
from plateau.alignment.windows import windows_of
from plateau.config import UserError, cli
from plateau.data.corpus import Corpus
from plateau.data.masking import MaskShareOptions, generator_for
from plateau.data.windows import WindowOptions, masked_words
from plateau.decoding.files import Interval, read_ctm
from plateau.io import file_name, replacing
from plateau.report.audio import load_samples, sample_range, wav
from plateau.training.experiment import Experiment, SpeechOptions, corpus_of, options_class


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


def write_window(
    exp_dir: Path, options: SpeechOptions, set_name: str, number: int, out: Path | None
) -> None:
    """Write a window's samples, and say its words: those in brackets are masked, as in training.

    Raises:
        UserError: there is no such window.
    """
    windows = windows_of(corpus_of(options), set_name, getattr(options, "window", WindowOptions()))
    if not 1 <= number <= len(windows):
        raise UserError(f"--window {number}: {set_name} has {len(windows)} windows")
    cut, words = windows[number - 1]
    masking = getattr(options, "masking", MaskShareOptions())
    masked = masked_words(len(words), masking, 0, generator_for(cut.id))
    out = out or exp_dir / "report" / file_name(cut.id, ".wav")
    with replacing(out) as temporary:
        temporary.write_bytes(wav(load_samples(cut), cut.sampling_rate))
    text = " ".join(f"[{w.label}]" if n in masked else w.label for n, w in enumerate(words))
    print(f"{out}: {cut.id}, {cut.start:.3f} to {cut.end:.3f} s: {text}")
    if outside := int(windows.index.outside[number - 1]):
        print(f"{outside} of its {len(words)} words are not within its audio")


def write_word(
    exp_dir: Path, options: SpeechOptions, utterance: str, word: int, set: str, out: Path | None
) -> None:
    """Write a word of an utterance, or all of it; see `main`."""
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


def main(
    exp_dir: Path,
    name: str,
    word: int = 0,
    window: int = 0,
    set: str = "",
    out: Path | None = None,
) -> None:
    """Write a word's samples: of its true time where that is known, else of the aligned one.

    Args:
        exp_dir: the experiment's folder
        name: an utterance's id; with --window, a set's name
        word: number of the word, from 1; 0: the whole utterance
        window: number of a window of the set, from 1: its samples, and its words
        set: which set the utterance is of; without it, it is looked for
        out: the file; without it, one in the experiment's folder report/
    """
    options = Experiment(exp_dir).options(options_class(exp_dir.resolve().parent.name))
    if window:
        write_window(exp_dir, options, name, window, out)
    else:
        write_word(exp_dir, options, name, word, set, out)


if __name__ == "__main__":
    cli(main)
