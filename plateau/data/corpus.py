"""Where a corpus keeps its things: the one place that knows the layout of `data/<corpus>/`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from lhotse import CutSet, RecordingSet, SupervisionSet

from plateau.config import UserError
from plateau.data import backend  # noqa: F401 (so that Lhotse reads audio as we do)
from plateau.data.stored import read_manifest
from plateau.text import odd_characters

TRAIN = "train"
DEV_NAMES = ("dev", "valid", "validation", "val", "cv", "devel", "development", "train_dev")


@dataclass(frozen=True)
class Corpus:
    """A corpus under ``root`` = ``data/<corpus>``; its sets are the folders with a file `mark`.

    Args:
        root: its folder.
        named_dev: the set to look at while training; "": see `dev_set`.
        named_tests: the sets to decode; none: see `test_sets`.
        mark: the file that the folder of a set has; Kaldi's data directories have a `wav.scp`.
    """

    root: Path
    named_dev: str = ""
    named_tests: tuple[str, ...] = ()
    mark: str = "wav.scp"

    @property
    def name(self) -> str:
        """The corpus's name, which starts the names of its manifests."""
        return self.root.name

    def sets(self) -> list[str]:
        """Names of the data directories, sorted."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{self.mark}"))

    def dev_set(self) -> str:
        """The set that training looks at after each epoch; "" where there is none.

        It is the one named, else the first of `DEV_NAMES` that is there, else the first whose name
        starts with `dev`.

        Raises:
            UserError: the one named is not there.
        """
        sets = self.sets()
        if self.named_dev:
            self._check("--dev-set", [self.named_dev])
            return self.named_dev
        usual = [s for s in DEV_NAMES if s in sets] + [s for s in sets if s.startswith("dev")]
        return usual[0] if usual else ""

    def test_sets(self) -> list[str]:
        """The sets to decode and align.

        These are the ones named, else the development set and all whose names start with `test` or
        `eval`.

        Raises:
            UserError: one that is named is not there.
        """
        if self.named_tests:
            self._check("--test-sets", self.named_tests)
            return list(self.named_tests)
        dev = self.dev_set()
        tests = [s for s in self.sets() if s != dev and s.startswith(("test", "eval"))]
        return [dev, *tests] if dev else tests

    def nothing_to_decode(self) -> UserError:
        """What to say where there are no `test_sets`."""
        sets = " ".join(self.sets())
        return UserError(
            f"{self.root}: no set to decode: none is called dev, valid …, test… or eval…; it has "
            f"{sets}\nname some: ./run.sh … --test-sets '{sets}', or put one in {self.root}/test"
        )

    def used_sets(self) -> list[str]:
        """Sets that are trained on, looked at while training, or decoded, each once, in that order.

        Raises:
            UserError: one that is named is not there.
        """
        return list(dict.fromkeys(filter(None, (TRAIN, self.dev_set(), *self.test_sets()))))

    def unused_sets(self) -> list[str]:
        """The others."""
        used = self.used_sets()
        return [s for s in self.sets() if s not in used]

    def check_train(self) -> None:
        """See that there is a training set, and that all sets have names that can be said.

        Raises:
            UserError: there is none; it names what there is. Or a name that lists cannot have.
        """
        sets = self.sets()
        for name in sets:
            if name.startswith(".") or re.search(r"[\s,]", name) or odd_characters(name):
                raise UserError(
                    f"{self.root}: {name!r}: a set's name may not begin with a dot, nor have white "
                    "space, commas or control characters\nrename the folder"
                )
        if TRAIN in sets:
            return
        if not sets:
            raise UserError(f"{self.root}: no */{self.mark}; put data directories there")
        likely = next((s for s in sets if s.startswith(TRAIN)), "SET")
        raise UserError(
            f"{self.root}: no set of the name {TRAIN}, which is trained on; there is "
            f"{', '.join(sets)}\nrename the one to train on: mv "
            f"{quote(str(self.root / likely))} {quote(str(self.root / TRAIN))}"
        )

    def _check(self, option: str, names: Sequence[str]) -> None:
        sets = self.sets()
        missing = [name for name in names if name not in sets]
        if missing:
            raise UserError(
                f"{option}: {self.root} has no set {', '.join(missing)}; it has {', '.join(sets)}"
            )

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
        return read_manifest(RecordingSet, self._existing("recordings", set_name))

    def supervisions(self, set_name: str) -> SupervisionSet:
        """The utterances of a set."""
        return read_manifest(SupervisionSet, self._existing("supervisions", set_name))

    def texts(self, set_name: str) -> Iterator[str]:
        """The transcripts of a set, read when they are wanted; empty where there is none."""
        for supervision in self.supervisions(set_name):
            yield supervision.text or ""

    def cuts(self, set_name: str) -> CutSet:
        """The utterances of a set with their features."""
        return read_manifest(CutSet, self._existing("cuts", set_name))

    def _existing(self, kind: str, set_name: str) -> Path:
        path = self.manifest(kind, set_name)
        if path.exists():
            return path
        sets = self.sets()
        if set_name not in sets:
            there = f"it has {', '.join(sets)}" if sets else "there is no */wav.scp"
            raise UserError(f"{self.root} has no set {set_name}; {there}")
        stage = 2 if kind == "cuts" else 1
        raise UserError(
            f"{path}: no such file, though {self.root / set_name} is there\n"
            f"stage {stage} makes it: start the same ./run.sh again, without --stage"
        )
