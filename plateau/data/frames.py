"""Waveforms of a speech corpus as sequences of frames of samples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lhotse.cut import MonoCut
from tqdm import tqdm

from plateau.data.corpus import Corpus
from plateau.data.features import read_audio, utterance_cuts
from plateau.data.sequences import About, Sequence, with_steps, write_corpus
from plateau.ranges import at_least, check_options


@dataclass(frozen=True)
class FrameOptions:
    """How waveforms become sequences.

    Args:
        frame_length: samples of a step; what is left of a waveform after the last is not used
        sampling_rate: in Hz; recordings at other rates are resampled
    """

    frame_length: int = 200
    sampling_rate: int = 16000

    def __post_init__(self) -> None:
        check_options(
            self,
            "frames",
            frame_length=at_least(1, 10**5),
            sampling_rate=at_least(2000, 10**6),
        )


def compute_frames(corpus: Corpus, options: FrameOptions, output: Path) -> None:
    """Write the sets of a speech corpus as a corpus of frames: a sequence for each utterance.

    Args:
        corpus: its manifests are there
        options: see `FrameOptions`
        output: folder of the corpus of sequences

    Raises:
        UserError: audio cannot be read, or no utterance of a set is as long as a frame.
    """
    about = About("frames", sampling_rate=options.sampling_rate)
    why = f"shorter than a frame of {options.frame_length} samples at {options.sampling_rate} Hz"
    write_corpus(
        output,
        about,
        {
            name: with_steps(_frames(_cuts(corpus, name, options), options.frame_length), why)
            for name in corpus.sets()
        },
    )


def _cuts(corpus: Corpus, name: str, options: FrameOptions) -> Iterable[MonoCut]:
    manifests = corpus.recordings(name), corpus.supervisions(name)
    cuts = utterance_cuts(*manifests, options.sampling_rate)
    return tqdm(cuts, f"frames of {name}", len(cuts), disable=None)


def _frames(cuts: Iterable[MonoCut], length: int) -> Iterator[Sequence]:
    for cut in cuts:
        samples = read_audio(cut)
        frames = samples[: len(samples) // length * length].reshape(-1, length)  # (T, length)
        supervision = cut.supervisions[0]
        yield Sequence(cut.id, frames, supervision.speaker or "", supervision.text or "")
