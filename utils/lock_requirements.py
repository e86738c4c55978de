#!/usr/bin/env python3
"""Write requirements/NAME.txt: all that NAME.in leads to, one wheel with its hash for each Python.

Run it on Linux after a file ``.in`` was changed, with the interpreters of that environment on PATH:
``python utils/lock_requirements.py classic`` (or ``current``). Each Python is asked by its own pip,
since pip evaluates markers for the Python that runs. What is locked already keeps its version; to
take the newest of all, remove the lock first.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plateau.io import write_text

FOLDER = Path(__file__).resolve().parents[1] / "requirements"
PYTHONS = {"classic": ("3.11",), "current": ("3.11", "3.12", "3.13")}

# glibc 2.28 (RHEL 8, Debian 10) and older: what clusters have. pip knows no "or older" by itself.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + [
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
]

HEADER = """\
# Written by utils/lock_requirements.py from {name}.in: CPython {pythons}, Linux x86-64,
# glibc 2.28 or newer. Every package carries the hashes of the wheels to install, one for each
# Python: pip wants all or none, and k2's wheels cannot be told apart without.
"""
# A line of a lock that path.sh takes in place of torch and CUDA where no GPU is.
WITHOUT_GPU = "# without a GPU: "

Wheels = dict[str, tuple[str, str]]  # name → version, SHA-256


def resolve(python: str, requirements: Sequence[str], locked: Sequence[str] = ()) -> Wheels:
    """Return every wheel that the pip of a Python would install.

    Args:
        python: version, "3.11"; ``python3.11`` must be on PATH
        requirements: what is asked for
        locked: versions that are kept, as pip's constraints

    Raises:
        CalledProcessError: pip finds no wheels that go together; it said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, constraints = Path(folder, "requirements.in"), Path(folder, "constraints")
        wanted.write_text("\n".join(requirements))
        constraints.write_text("\n".join(locked))
        report = Path(folder, "report.json")
        pip = [f"python{python}", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--dry-run", "--ignore-installed", "--target", folder, "--report", str(report)]
        wheels = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
        platforms = [f"--platform={platform}" for platform in PLATFORMS]
        subprocess.run(
            [*pip, *options, *wheels, *platforms, "-r", wanted, "-c", constraints], check=True
        )
        packages = json.loads(report.read_text())["install"]
    return {
        re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower(): (
            package["metadata"]["version"],
            package["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for package in packages
    }


def merge(wheels: dict[str, Wheels]) -> list[str]:
    """Return the lines of a lock, by name, of what each Python installs.

    Args:
        wheels: Python's version → its wheels
    """
    found: dict[tuple[str, str], dict[str, str]] = {}  # name, version → Python → SHA-256
    for python, packages in wheels.items():
        for name, (version, sha) in packages.items():
            found.setdefault((name, version), {})[python] = sha
    lines = []
    for (name, version), hashes in sorted(found.items()):
        marker = " or ".join(f'python_version == "{python}"' for python in hashes)
        line = f"{name}=={version}" + f" ; {marker}" * (len(hashes) < len(wheels))
        line += "".join(f" --hash=sha256:{sha}" for sha in sorted(set(hashes.values())))
        lines.append(line)
    return lines


def asked_for(name: str) -> list[str]:
    """Return the lines of requirements/NAME.in, those of files that it includes among them."""
    lines: list[str] = []
    for line in (FOLDER / f"{name}.in").read_text().splitlines():
        if line.startswith("-r "):
            lines += asked_for(line.removeprefix("-r ").removesuffix(".in"))
        elif line.startswith(WITHOUT_GPU) or not line.startswith("#"):
            lines.append(line if line.startswith("#") else line.split(" #")[0].strip())
    return [line for line in lines if line]


def without_gpu(line: str, pythons: Sequence[str]) -> str:
    """Return the line of a lock for a build without CUDA, where pip is offered one."""
    requirement = line.removeprefix(WITHOUT_GPU)
    name = requirement.split("==")[0]
    found: dict[str, Wheels] = {}
    for python in pythons:
        try:
            found[python] = {name: resolve(python, [requirement])[name]}
        except subprocess.CalledProcessError:
            print(f"no {requirement} for CPython {python}", file=sys.stderr)
    return "".join(f"{WITHOUT_GPU}{locked}\n" for locked in merge(found))


def main(name: str) -> None:
    """Resolve requirements/NAME.in; lines that have a hash already are taken as they are."""
    asked = asked_for(name)
    pinned = [line for line in asked if "--hash=" in line]
    instead = [line for line in asked if line.startswith(WITHOUT_GPU)]
    free = [line for line in asked if line not in pinned and line not in instead]
    lock = FOLDER / f"{name}.txt"
    before = re.findall(r"^(\w\S*==\S+)", lock.read_text(), re.MULTILINE) if lock.exists() else []
    # What a file .in gives a version is as it says.
    given = {re.split(r"[=<>]", line)[0] for line in asked if re.match(r"\S+[=<>]", line)}
    kept = [line for line in before if line.split("==")[0] not in given]
    wheels: dict[str, Wheels] = {}
    for python in PYTHONS[name]:
        wheels[python] = resolve(python, free, kept)
        # The next has the same versions.
        kept = [f"{package}=={version}" for package, (version, _) in wheels[python].items()]
    header = HEADER.format(name=name, pythons=", ".join(PYTHONS[name]))
    header += "".join(without_gpu(line, PYTHONS[name]) for line in instead)
    write_text(lock, header + "\n".join(sorted(pinned + merge(wheels))) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PYTHONS:
        sys.exit("usage: python utils/lock_requirements.py " + "|".join(PYTHONS))
    main(sys.argv[1])
