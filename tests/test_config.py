import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plateau import config
from plateau.config import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1
    names: tuple[str, ...] = ("a",)
    scale: float | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    corpus: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0


def test_overrides_win_over_values():
    values = {"inner": {"size": 2, "names": ["b", "c"]}, "corpus": {"hours": 1}}
    options = config.resolve(Outer, values, ["inner.size=3", "seed=4", "corpus.hours=2"])
    assert options == Outer(Inner(size=3, names=("b", "c")), {"hours": 2}, seed=4)


def test_saved_options_are_read_back_whole_or_by_section(tmp_path: Path):
    options = Outer(Inner(size=7, scale=0.5), {"seed": 3}, seed=9)
    config.save(options, tmp_path / "config.yaml")
    assert config.load(Outer, tmp_path / "config.yaml") == options
    assert config.load(Inner, tmp_path / "config.yaml", section="inner") == options.inner


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("inner.sise=3", "inner.sise"),
        ("inner.size=big", "inner.size"),
        ("seed", "field.name=value"),
    ],
)
def test_mistakes_name_the_field(override: str, said: str):
    with pytest.raises(UserError, match=said):
        config.resolve(Outer, {}, [override])


def test_mistakes_in_a_file_name_the_file(tmp_path: Path):
    path = tmp_path / "conf.yaml"
    with pytest.raises(UserError, match="no such file"):
        config.load(Outer, path)
    path.write_text("inner: {siz: 3}")
    with pytest.raises(UserError, match=r"conf\.yaml.*siz"):
        config.load(Outer, path)
    path.write_text("inner: [")
    with pytest.raises(UserError, match=r"conf\.yaml: not YAML"):
        config.load(Outer, path)


def test_a_user_error_is_a_line_and_a_status(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from plateau.config import UserError, cli\n"
        "def main(number: int):\n"
        "    raise UserError(f'no {number}; take 2')\n"
        "cli(main)\n"
    )
    for argument, status, said in (("1", 1, "no 1; take 2"), ("x", 2, "number")):
        command = [sys.executable, str(script), argument]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == status
        assert said in run.stderr
        assert "Traceback" not in run.stderr
        assert "script.py: " in run.stderr
