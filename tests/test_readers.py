"""Every reader gives a result or a `UserError` that names the file, whatever the file holds.

`pytest tests/test_readers.py --fuzz 50000` tries more inputs than the suite does.
"""

import ast
import math
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.formats import READERS
from tests.fuzz import contents, refusal

ROOT = Path(__file__).parent.parent
SHARES = sum(reader.share for reader in READERS)
# Functions that read through one of those above, and what tries them.
OTHERS = {
    "plateau.data.backend.PlateauBackend.read_audio": "tests/data/test_backend.py",
    "plateau.data.features.read_audio": "tests/data/test_frames.py",
    "plateau.data.loading.load_batch": "tests/data/test_loading.py",
    "plateau.data.stored.read_manifest": "tests/data/test_stored.py",
    "plateau.models.vrnn.Vrnn.read": "tests/models/test_vrnn.py",
    "plateau.report.audio.load_samples": "tests/report/test_report.py",
    "plateau.training.recipe.load_final": "tests/training/test_damage.py",
    "plateau.training.state_file.read_state": "tests/training/test_state_file.py",
}


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_a_result_or_an_error_that_names_the_file(reader, tmp_path, request):
    wanted = math.ceil(request.config.getoption("--fuzz") * reader.share / SHARES)
    assert refusal(reader, reader.put(tmp_path, reader.example)) is None
    tried = 0

    @settings(max_examples=wanted, suppress_health_check=list(HealthCheck))
    @given(contents(reader))
    def check(content: bytes) -> None:
        nonlocal tried
        tried += 1
        refusal(reader, reader.put(tmp_path, content))

    check()
    assert tried >= wanted
    request.node.user_properties.append(("fuzzed", tried))


@pytest.mark.parametrize("reader", [r for r in READERS if r.bad], ids=str)
def test_the_line_is_told(reader, tmp_path):
    first, *others = reader.example.splitlines(keepends=True)
    path = reader.put(tmp_path, b"".join([first, reader.bad.encode(), b"\n", *others]))
    message = refusal(reader, path)
    assert message
    assert re.search(rf"{re.escape(path.name)}(:|, line |: .*line )2\b", message)


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_a_folder_or_nothing_is_in_the_place_of_the_file(reader, tmp_path):
    refusal(reader, reader.put(tmp_path / "nothing", None))
    path = reader.put(tmp_path / "folder", None)
    path.mkdir()
    refusal(reader, path)


def public_functions(verbs: str) -> list[str]:
    """Public functions and methods of the library whose names begin with one of these verbs."""
    found = []
    for path in sorted((ROOT / "plateau").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            inside = node.body if isinstance(node, ast.ClassDef) and node.name[0] != "_" else ()
            for function, owner in [(node, ""), *((part, f"{node.name}.") for part in inside)]:
                is_function = isinstance(function, ast.FunctionDef)
                if is_function and re.match(f"({verbs})(_|$)", function.name):
                    found.append(f"{module}.{owner}{function.name}")
    return found


def test_every_reader_of_the_library_is_tried():
    covered = {reader.covers for reader in READERS} | OTHERS.keys()
    assert [name for name in public_functions("read|load") if name not in covered] == []
    assert all((ROOT / test).is_file() for test in OTHERS.values())
