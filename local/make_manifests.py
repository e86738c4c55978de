"""Stage 1: check a corpus's Kaldi data directories, and convert them to Lhotse manifests."""

import sys
from pathlib import Path

from plateau.config import cli
from plateau.data.audio import check_there, is_pipe
from plateau.data.corpus import Corpus
from plateau.data.examination import is_valid
from plateau.data.manifests import to_manifests
from plateau.data.validate import examine
from plateau.io import replacing


def main(data_root: Path, allow_pipes: bool = False, nj: int = 4) -> None:
    """Write DATA_ROOT/manifests/ for each set of a corpus, that is each folder with a wav.scp.

    Args:
        data_root: data/CORPUS
        allow_pipes: run the shell commands in wav.scp
        nj: threads that look at the recordings
    """
    corpus = Corpus(data_root)
    corpus.check_train()
    # One look at the audio serves the check and the manifests; commands run once.
    found = [examine(data_root / name, allow_pipes, nj=nj) for name in corpus.sets()]
    check_there(audio for e in found for audio in e.audio if not is_pipe(audio))
    if not all([is_valid(examination) for examination in found]):
        sys.exit(1)
    for name, examination in zip(corpus.sets(), found, strict=True):
        recordings, supervisions = to_manifests(
            data_root / name, allow_pipes=allow_pipes, known=examination.audio
        )
        for kind, manifest in (("recordings", recordings), ("supervisions", supervisions)):
            with replacing(corpus.manifest(kind, name)) as temporary:
                manifest.to_file(temporary)
        hours = sum(supervision.duration for supervision in supervisions) / 3600
        aligned = any(supervision.alignment for supervision in supervisions)
        print(
            f"{data_root / name}: {len(supervisions)} utterances, {hours:.2f} hours, "
            f"alignment {'yes' if aligned else 'no'}"
        )


if __name__ == "__main__":
    cli(main)
