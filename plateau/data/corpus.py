"""Where a corpus keeps its things: the one place that knows the layout of `data/<corpus>/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet, RecordingSet, SupervisionSet

from plateau.config import UserError
from plateau.data import backend  # noqa: F401 (so that Lhotse reads audio as we do)

TRAIN = "train"
DEV = "dev"


@dataclass(frozen=True)
class Corpus:
    """A corpus under ``root`` = ``data/<corpus>``; its sets are the folders with a `wav.scp`."""

    root: Path

    @property
    def name(self) -> str:
        """The corpus's name, which starts the names of its manifests."""
        return self.root.name

    def sets(self) -> list[str]:
        """Names of the data directories, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/wav.scp"))

    def test_sets(self) -> list[str]:
        """The sets to decode: `dev`, then all whose names start with `test`."""
        return [s for s in self.sets() if s == DEV or s.startswith("test")]

    def manifest(self, kind: str, set_name: str) -> Path:
        """Path of a Lhotse manifest; ``kind`` is recordings, supervisions or cuts."""
        return self.root / "manifests" / f"{self.name}_{kind}_{set_name}.jsonl.gz"

    @property
    def fbank(self) -> Path:
        """Folder of the features."""
        return self.root / "fbank"

    @property
    def statistics(self) -> Path:
        """Mean and variance of the training features."""
        return self.fbank / "statistics.json"

    def recordings(self, set_name: str) -> RecordingSet:
        """The recordings of a set."""
        return RecordingSet.from_file(self._existing("recordings", set_name, stage=1))

    def supervisions(self, set_name: str) -> SupervisionSet:
        """The utterances of a set."""
        return SupervisionSet.from_file(self._existing("supervisions", set_name, stage=1))

    def texts(self, set_name: str) -> Iterator[str]:
        """The transcripts of a set, read when they are wanted; empty where there is none."""
        for supervision in self.supervisions(set_name):
            yield supervision.text or ""

    def cuts(self, set_name: str) -> CutSet:
        """The utterances of a set with their features."""
        return CutSet.from_file(self._existing("cuts", set_name, stage=2))

    def _existing(self, kind: str, set_name: str, stage: int) -> Path:
        path = self.manifest(kind, set_name)
        if not path.exists():
            raise UserError(f"{path}: no such manifest; make it with ./run.sh --stage {stage}")
        return path
