"""Data directories of the Mboshi-French parallel corpus: Mboshi as written, tones marked."""

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from plateau.config import UserError, cli, load
from plateau.data.kaldi import Interval, Utterance, write_data_dir
from plateau.text import normalise, read_lines, read_text

LAYOUT = "full_corpus_newsplit/{train,dev}/*.mb.cleaned, each with a .wav or .flac beside it"
DEV_EVERY = 20  # every 20th utterance of the published train is dev
SILENCES = ("SIL", "XSIL")
ALIGNMENTS = Path("ZRC_scoring", "mboshi", "in")


@dataclass(frozen=True)
class MboshiOptions:
    """There is nothing to choose."""


def without_tones(word: str) -> str:
    """A word without its diacritics; transcripts and alignments differ in them."""
    letters = unicodedata.normalize("NFD", word)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def read_intervals(path: Path) -> tuple[Interval, ...] | None:
    """Read lines of start, end (seconds), label; None where there is no file.

    Raises:
        UserError: names a line that is not of this form.
    """
    if not path.exists():
        return None
    intervals = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            start, end, label = line.split()
            if not (0 <= float(start) < math.inf and 0 <= float(end) < math.inf):
                raise ValueError
            interval = Interval(float(start), round(float(end) - float(start), 4), normalise(label))
        except ValueError:
            raise UserError(f"{path}:{number}: '{line}' is not: start end label") from None
        intervals.append(interval)
    return tuple(intervals)


def in_order(intervals: tuple[Interval, ...]) -> bool:
    """Whether each has a length and none starts before the one before it has ended."""
    return all(i.duration > 0 for i in intervals) and all(
        first.start + first.duration <= second.start + 1e-4 for first, second in pairwise(intervals)
    )


def silver(
    folder: Path, name: str, text: str
) -> tuple[str, tuple[Interval, ...], tuple[Interval, ...]]:
    """Read the forced alignment of an utterance: its state, words as in the transcript, phones.

    A tenth of the published alignments mix several utterances; such have times out of order or
    other words than the transcript, and nothing is taken from them.
    """
    words = read_intervals(folder / f"{name}.wrd")
    phones = read_intervals(folder / f"{name}.phn") or ()
    if words is None:
        return "no alignment", (), ()
    if not (in_order(words) and in_order(phones)):
        return "alignment out of order", (), ()
    spoken = [word for word in words if word.label not in SILENCES]
    written = text.split()
    if [without_tones(w.label) for w in spoken] != [without_tones(w) for w in written]:
        return "alignment of other words", (), ()
    timed = tuple(
        Interval(word.start, word.duration, label)
        for word, label in zip(spoken, written, strict=True)
    )
    return "aligned", timed, tuple(phone for phone in phones if phone.label not in SILENCES)


def read_set(folder: Path, alignments: Path, states: Counter[str]) -> list[Utterance]:
    """Read a published set; ``states`` counts what became of the alignments."""
    utterances = []
    for transcript in sorted(folder.glob("*.mb.cleaned")):
        name = transcript.name.removesuffix(".mb.cleaned")
        audio = [p for p in (folder / f"{name}.wav", folder / f"{name}.flac") if p.exists()]
        if not audio:
            raise UserError(f"{transcript}: neither {name}.wav nor {name}.flac is beside it")
        text = normalise(read_text(transcript))
        state, words, phones = silver(alignments, name, text)
        states[state] += 1
        speaker, _, rest = name.partition("_")
        utterance = f"{speaker}-{rest}"
        utterances.append(
            Utterance(utterance, speaker, text, str(audio[0]), words=words, phones=phones)
        )
    return utterances


def main(
    output: Path, corpus_dir: Path | None = None, config: Path | None = None, nj: int = 1
) -> None:
    """Write the sets train, dev and test of Mboshi; the audio stays where it is.

    Args:
        output: data/mboshi
        corpus_dir: the folder that has full_corpus_newsplit and, for alignments, ZRC_scoring
        config: YAML whose section `corpus` is empty, as there is nothing to choose
        nj: number of parallel processes; one does
    """
    if config is not None:
        load(MboshiOptions, config, section="corpus")
    if corpus_dir is None:
        raise UserError(f"give --corpus-dir, the folder that has {LAYOUT}")
    root = corpus_dir.resolve()
    if root.name == "full_corpus_newsplit":
        root = root.parent
    states: Counter[str] = Counter()
    published = {
        name: read_set(root / "full_corpus_newsplit" / name, root / ALIGNMENTS, states)
        for name in ("train", "dev")
    }
    if not all(published.values()):
        raise UserError(f"{corpus_dir}: transcripts are not there\nexpected: {LAYOUT}")
    train = published["train"]
    write_data_dir(output / "dev", train[DEV_EVERY - 1 :: DEV_EVERY] or train[-1:])
    write_data_dir(
        output / "train", [u for n, u in enumerate(train, start=1) if n % DEV_EVERY] or train
    )
    write_data_dir(output / "test", published["dev"])
    print(", ".join(f"{count} {state}" for state, count in states.most_common()))


if __name__ == "__main__":
    cli(main)
