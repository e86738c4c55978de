"""NIST sclite, where it is installed; in Debian's package sctk it is a command of ``sctk``."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

COMMAND = ["sclite"] if shutil.which("sclite") else ["sctk", "sclite"]
needs_sclite = pytest.mark.skipif(
    shutil.which(COMMAND[0]) is None, reason="needs NIST sclite (Debian: apt-get install sctk)"
)
FILES = {"trn": "-r ref.trn trn -h hyp.trn trn -i spu_id", "ctm": "-r ref.stm stm -h hyp.ctm ctm"}


def counts(directory: Path, kind: str) -> dict[str, int]:
    """sclite's sums over the files of a decode directory; ``kind`` is trn or ctm."""
    command = [*COMMAND, *FILES[kind].split(" "), "-e", "utf-8", "-s", "-o", "rsum", "stdout"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    columns = re.search(r"\| *Sum *\|([\d |]+)\|", done.stdout)
    assert columns, done.stdout + done.stderr
    names = ("sentences", "words", "correct", "sub", "del", "ins", "errors", "wrong")
    numbers = map(int, re.findall(r"\d+", columns[1])[: len(names)])
    return dict(zip(names, numbers, strict=True))
