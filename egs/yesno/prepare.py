"""Data directories of yesno: eight words in each recording, each YES or NO, by one man."""

from dataclasses import dataclass
from pathlib import Path

from plateau.config import UserError, cli, load
from plateau.data.kaldi import Utterance, write_data_dir

SPEAKER = "man"
WORDS = {"0": "NO", "1": "YES"}
LAYOUT = "60 files like 0_0_1_1_0_1_0_1.wav (1 is YES, 0 is NO), as in Kaldi's waves_yesno.tar.gz"


@dataclass(frozen=True)
class YesnoOptions:
    """There is nothing to choose."""


def main(
    output: Path, corpus_dir: Path | None = None, config: Path | None = None, nj: int = 1
) -> None:
    """Write the sets train, dev and test of yesno; the audio stays where it is.

    Args:
        output: data/yesno
        corpus_dir: the folder waves_yesno
        config: YAML whose section `corpus` is empty, as there is nothing to choose
        nj: number of parallel processes; one does
    """
    if config is not None:
        load(YesnoOptions, config, section="corpus")
    if corpus_dir is None:
        raise UserError(f"give --corpus-dir, the folder waves_yesno: {LAYOUT}")
    folder = corpus_dir.resolve()
    recordings = sorted(folder.glob("[01]_*_[01].wav"))
    if len(recordings) != 60 or any(len(_digits(path)) != 8 for path in recordings):
        raise UserError(f"{corpus_dir}: {len(recordings)} recordings of yesno\nexpected: {LAYOUT}")
    utterances = [
        Utterance(
            id=f"{SPEAKER}-{path.stem}",
            speaker=SPEAKER,
            text=" ".join(WORDS[digit] for digit in _digits(path)),
            audio=str(path),
        )
        for path in recordings
    ]
    # Kaldi's split. The five of dev are in train as well, so that nothing is taken from it.
    write_data_dir(output / "train", utterances[:30])
    write_data_dir(output / "dev", utterances[25:30])
    write_data_dir(output / "test", utterances[30:])


def _digits(path: Path) -> list[str]:
    return [digit for digit in path.stem.split("_") if digit in WORDS]


if __name__ == "__main__":
    cli(main)
