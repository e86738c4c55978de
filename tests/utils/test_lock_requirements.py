"""Each lock is that of its file .in: nothing forgotten, nothing without its hash."""

import re

import pytest
from packaging.requirements import Requirement

from plateau.environment import pins
from utils.lock_requirements import FOLDER, PYTHONS, WITHOUT_GPU, asked_for, merge

HASHES = r"(?: --hash=sha256:[0-9a-f]{64})+"
LOCKED = re.compile(rf"([a-z0-9-]+)==([^ ]+)(?: ; python_version == [^-]+)?{HASHES}")
ENVIRONMENTS = [(name, python) for name, pythons in PYTHONS.items() for python in pythons]


@pytest.mark.parametrize(("name", "python"), ENVIRONMENTS)
def test_what_is_asked_for_is_locked(name, python):
    versions = pins((FOLDER / f"{name}.txt").read_text(), python)
    for line in asked_for(name):
        if not line.startswith(WITHOUT_GPU):
            requirement = Requirement(line.split(" --hash")[0])
            assert requirement.specifier.contains(versions[requirement.name.lower()]), line


@pytest.mark.parametrize("name", PYTHONS)
def test_all_that_is_locked_has_hashes_and_one_version(name):
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    matches = [LOCKED.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(matches)
    assert len({m[1] for m in matches}) == len(matches)


def test_the_hash_that_tells_k2_wheels_apart_is_kept():
    (asked,) = [line for line in asked_for("classic") if line.startswith("k2")]
    assert asked in (FOLDER / "classic.txt").read_text().splitlines()


def test_torch_without_cuda_is_of_the_same_version():
    text = (FOLDER / "current.txt").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(WITHOUT_GPU)]
    found = LOCKED.fullmatch(line.removeprefix(WITHOUT_GPU))
    assert (found[1], found[2]) == ("torch", pins(text, "3.11")["torch"] + "+cpu")


def test_wheels_of_several_pythons_make_one_lock():
    """A hash for each Python; one where the wheel is for all; markers where not all have it."""
    lines = merge(
        {
            "3.11": {"numpy": ("2.4", "a"), "tqdm": ("4", "c")},
            "3.12": {"numpy": ("2.4", "b"), "tqdm": ("4", "c"), "chunk": ("3", "d")},
            "3.13": {"numpy": ("2.4", "e"), "tqdm": ("4", "c"), "chunk": ("3", "d")},
        }
    )
    assert lines == [
        'chunk==3 ; python_version == "3.12" or python_version == "3.13" --hash=sha256:d',
        "numpy==2.4 --hash=sha256:a --hash=sha256:b --hash=sha256:e",
        "tqdm==4 --hash=sha256:c",
    ]
