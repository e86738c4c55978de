import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """#!/usr/bin/env bash
# Does nothing:
#
#   ./do.sh --speed N
set -euo pipefail
# not a part of the help
speed=1
dry_run=false
name=
. {root}/utils/parse_options.sh
printf '%s\\n' "speed=$speed" "dry_run=$dry_run" "name=$name" "$@"
"""


@pytest.fixture
def do(tmp_path):
    script = tmp_path / "do.sh"
    script.write_text(SCRIPT.format(root=ROOT))

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    return run


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], ["speed=1", "dry_run=false", "name="]),
        (["--speed", "3"], ["speed=3", "dry_run=false", "name="]),
        (["--dry-run", "--speed", "3"], ["speed=3", "dry_run=true", "name="]),
        (["--dry_run"], ["speed=1", "dry_run=true", "name="]),
        (["--dry-run", "--dry-run", "--name", "x"], ["speed=1", "dry_run=true", "name=x"]),
        (["--speed", "3", "--speed", "4"], ["speed=4", "dry_run=false", "name="]),
        (
            ["--name", "two words; $(exit 3)"],
            ["speed=1", "dry_run=false", "name=two words; $(exit 3)"],
        ),
        (["--name", "-1"], ["speed=1", "dry_run=false", "name=-1"]),
        (["--"], ["speed=1", "dry_run=false", "name="]),
        (
            ["--speed", "3", "--", "a.b=1", "--speed", "x y"],
            ["speed=3", "dry_run=false", "name=", "a.b=1", "--speed", "x y"],
        ),
    ],
)
def test_options_become_variables(do, arguments, lines):
    done = do(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sped", "3"], "do.sh: unknown option --sped; ./do.sh --help lists them"),
        (["--speed=3"], "do.sh: unknown option --speed=3; ./do.sh --help lists them"),
        (["--PATH", "x"], "do.sh: unknown option --PATH; ./do.sh --help lists them"),
        (["--a[$(touch mischief)]", "x"], "unknown option --a[$(touch mischief)]"),
        (["--speed"], "do.sh: option --speed needs a value"),
        (["--speed", "--", "x"], "do.sh: option --speed needs a value"),
        (["--name", "--speed", "3"], "do.sh: option --name needs a value"),
        (["--name", ""], "do.sh: option --name needs a value"),
        (["--dry-run", "yes"], "do.sh: 'yes' is not an option; field.name=value goes after --"),
        (["a.b=1"], "do.sh: 'a.b=1' is not an option; field.name=value goes after --"),
    ],
)
def test_mistakes_are_one_line(do, tmp_path, arguments, message):
    done = do(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "mischief").exists()


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_the_head_of_the_script(do, option):
    done = do("--speed", "3", option, "--unknown")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Does nothing:\n\n  ./do.sh --speed N\n"


def test_help_of_run_sh_explains_stages_and_options():
    done = subprocess.run(["bash", ROOT / "run.sh", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for number in range(9):
        assert f"\n  {number}  " in done.stdout
    for option in ("stage", "stop-stage", "corpus", "corpus-dir", "recipe", "exp", "config"):
        assert f"\n  --{option} " in done.stdout
