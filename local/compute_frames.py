"""Frames of the waveforms of every set of a speech corpus, for recipes that generate sound."""

from pathlib import Path

from plateau.config import cli, load
from plateau.data.corpus import Corpus
from plateau.data.frames import FrameOptions, compute_frames
from plateau.data.sequences import SequenceSet


def main(data_dir: Path, config: Path) -> None:
    """Write DATA_DIR/frames, a corpus of sequences with a set for each of the corpus.

    Args:
        data_dir: the speech corpus's folder, data/NAME, with manifests
        config: YAML file with a section `frames`
    """
    corpus = Corpus(data_dir)
    options = load(FrameOptions, config, section="frames")
    corpus.check_train()
    output = data_dir / "frames"
    compute_frames(corpus, options, output)
    for name in corpus.sets():
        sequences = SequenceSet(output / name)
        samples = sum(sequences.lengths) * options.frame_length
        hours = samples / options.sampling_rate / 3600
        print(f"{output / name}: {len(sequences)} sequences, {hours:.2f} h")


if __name__ == "__main__":
    cli(main)
