#!/usr/bin/env python3
"""Write requirements.txt: all that requirements.in leads to, one wheel with its hash each.

Run it with CPython 3.11 on Linux (markers are evaluated for the Python that runs) after
requirements.in was changed: ``python utils/lock_requirements.py``. What is locked already keeps its
version; to take the newest of all, remove requirements.txt first.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from plateau.io import write_text

# glibc 2.28 (RHEL 8, Debian 10) and older: what clusters have. pip knows no "or older" by itself.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + [
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
]

HEADER = """\
# Written by utils/lock_requirements.py from requirements.in: CPython 3.11, Linux x86-64, glibc 2.28
# or newer. Every package carries the hash of the one wheel to install: pip wants all or none, and
# k2's wheels cannot be told apart without.
"""


def resolve(requirements: str, locked: str) -> list[tuple[str, str, str]]:
    """Return (name, version, SHA-256) of every wheel that pip would install.

    Args:
        requirements: what is asked for.
        locked: versions that are kept, as pip's constraints.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, constraints = Path(folder, "requirements.in"), Path(folder, "constraints")
        wanted.write_text(requirements)
        constraints.write_text(locked)
        report = Path(folder, "report.json")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--dry-run", "--ignore-installed", "--target", folder, "--report", str(report)]
        wheels = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
        platforms = [f"--platform={platform}" for platform in PLATFORMS]
        subprocess.run(
            [*pip, *options, *wheels, *platforms, "-r", wanted, "-c", constraints], check=True
        )
        packages = json.loads(report.read_text())["install"]
    return [
        (
            re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower(),
            package["metadata"]["version"],
            package["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for package in packages
    ]


def main() -> None:
    """Resolve requirements.in; lines that have a hash already are taken as they are."""
    root = Path(__file__).resolve().parents[1]
    asked = (root / "requirements.in").read_text().splitlines()
    pinned = [line for line in asked if "--hash=" in line and not line.startswith("#")]
    free = "\n".join(line for line in asked if "--hash=" not in line)
    lock = root / "requirements.txt"
    before = re.findall(r"^(\S+==\S+) ", lock.read_text(), re.MULTILINE) if lock.exists() else []
    # What requirements.in gives a version is as it says.
    given = {re.split(r"[=<>]", line)[0] for line in asked if re.match(r"\S+[=<>]", line)}
    kept = "\n".join(line for line in before if line.split("==")[0] not in given)
    wheels = resolve(free, kept)
    locked = [f"{name}=={version} --hash=sha256:{sha}" for name, version, sha in wheels]
    write_text(lock, HEADER + "\n".join(sorted(pinned + locked)) + "\n")


if __name__ == "__main__":
    main()
