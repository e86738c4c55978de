"""requirements.txt is the lock of requirements.in: nothing forgotten, nothing without its hash."""

import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"([a-z0-9-]+)==([^ ]+) --hash=sha256:[0-9a-f]{64}")


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text()
    return [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]


def locked() -> dict[str, str]:
    matches = [LOCKED.fullmatch(line) for line in lines("requirements.txt")]
    assert all(matches)
    assert len({m[1] for m in matches}) == len(matches)
    return {m[1]: m[2] for m in matches}


def test_what_is_asked_for_is_locked():
    versions = locked()
    for line in lines("requirements.in"):
        requirement = Requirement(line.split(" --hash")[0])
        assert requirement.specifier.contains(versions[requirement.name]), line


def test_the_hash_that_tells_k2_wheels_apart_is_kept():
    (asked,) = [line for line in lines("requirements.in") if line.startswith("k2")]
    assert asked in lines("requirements.txt")
