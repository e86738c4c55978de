"""path.sh and utils/make_venv.sh, with a stand-in for uv: marks, locks, repair; no network."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each call is a line in $LOG. Installing fails if $FAIL is set, and waits for $GATE (a FIFO).
UV = """#!/bin/bash
echo "uv $1 $2" >>"$LOG"
case $1 in
  venv)
    mkdir -p "${!#}/bin"
    cp "$STAND_IN" "${!#}/bin/python"
    ;;
  pip)
    if [[ $* == *dev/fd* ]]; then exit 0; fi
    if [ -n "$GATE" ]; then read -r <"$GATE"; fi
    if [ -n "$FAIL" ]; then echo "no network" >&2; exit 1; fi
    touch "$(dirname "$4")/../installed"
    ;;
esac
"""
PYTHON = """#!/bin/bash
case $1 in
  *doctor.py) echo "the doctor is in" ;;
  *build_kaldifeat.py) echo kaldifeat >>"$LOG"; exit "${KALDIFEAT:-0}" ;;
esac
"""
ENTER = 'before=$-; . ./path.sh; echo "status=$? flags=$([ "$before" = $- ] && echo same)"; '
ENTER += 'echo "venv=${VIRTUAL_ENV:-} path=$PATH pythonpath=${PYTHONPATH:-}"'


class Clone:
    """A small clone of the repository with its own PATH."""

    def __init__(self, folder: Path):
        self.root = folder / "clone"
        self.venv = self.root / ".venv"
        self.log = folder / "log"
        self.bin = folder / "bin"
        (self.root / "utils").mkdir(parents=True)
        (self.root / "local").mkdir()
        self.bin.mkdir()
        self.log.touch()
        for name in ("path.sh", "utils/make_venv.sh"):
            shutil.copy(ROOT / name, self.root / name)
        (self.root / "requirements.txt").write_text("pip==1 --hash=sha256:0\n")
        self.program("uv", UV)
        self.program("stand-in", PYTHON)

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, script: str = ENTER, **variables: str) -> subprocess.Popen:
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.root),
            "LOG": str(self.log),
            "STAND_IN": str(self.bin / "stand-in"),
            "LC_ALL": "C",
            **variables,
        }
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def enter(self, script: str = ENTER, **variables: str) -> tuple[str, str]:
        return self.start(script, **variables).communicate(timeout=60)

    def calls(self) -> list[str]:
        """What was called since the last time, then forget it."""
        calls = self.log.read_text().splitlines()
        self.log.write_text("")
        return calls


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


FIRST = ["uv venv --quiet", "uv pip install", "uv pip install", "kaldifeat"]
UPDATE = FIRST[1:]


def test_made_on_first_use_and_only_entered_afterwards(clone):
    out, err = clone.enter()
    assert clone.calls() == FIRST
    assert "making the environment" in err
    assert "status=0 flags=same" in out
    assert f"venv={clone.venv} path={clone.venv}/bin:" in out
    assert f"pythonpath={clone.root}\n" in out
    assert (clone.venv / "installed").exists()
    assert clone.enter() == (out, "")
    assert clone.calls() == []


def test_entering_twice_does_not_lengthen_the_paths(clone):
    out, _ = clone.enter(f". ./path.sh; {ENTER}")
    assert out.count(f"{clone.venv}/bin") == 1
    assert out.count(f"pythonpath={clone.root}\n") == 1


def test_strict_shells_and_other_folders_can_source_it(clone):
    out, _ = clone.enter(f"set -euo pipefail; cd /; . {clone.root}/path.sh; echo $VIRTUAL_ENV")
    assert out == f"{clone.venv}\n"


def test_changed_requirements_are_noticed(clone):
    clone.enter()
    clone.calls()
    (clone.root / "requirements.txt").write_text("pip==2 --hash=sha256:0\n")
    _, err = clone.enter()
    assert "requirements.txt changed" in err
    assert clone.calls() == UPDATE
    clone.enter()
    assert clone.calls() == []


def test_failure_calls_the_doctor_keeps_the_shell_and_is_repaired(clone):
    out, err = clone.enter(FAIL="yes")
    assert "status=1 flags=same\nvenv= " in out
    assert "no network" in err
    assert "the doctor is in" in err
    clone.calls()
    (clone.venv / "half a package").touch()
    out, _ = clone.enter()
    assert clone.calls() == FIRST
    assert "status=0" in out
    assert not (clone.venv / "half a package").exists()


def test_interrupted_update_is_made_anew(clone):
    clone.enter()
    (clone.root / "requirements.txt").write_text("pip==2 --hash=sha256:0\n")
    clone.enter(FAIL="yes")
    clone.calls()
    clone.enter()
    assert clone.calls() == FIRST


@pytest.mark.parametrize(("status", "result"), [("1", "status=0"), ("2", "status=1")])
def test_set_up_succeeds_without_kaldifeat(clone, status, result):
    out, _ = clone.enter(KALDIFEAT=status)
    assert result in out


def test_own_environment_is_entered_as_it_is(clone, tmp_path):
    own = tmp_path / "own"
    (own / "bin").mkdir(parents=True)
    shutil.copy(clone.bin / "stand-in", own / "bin/python")
    out, err = clone.enter(PLATEAU_VENV=str(own))
    assert (f"venv={own} " in out, err, clone.calls()) == (True, "", [])


def test_environment_elsewhere_is_made(clone, tmp_path):
    out, _ = clone.enter(PLATEAU_VENV="../else where/env")
    assert f"venv={clone.root}/../else where/env " in out
    assert (tmp_path / "else where/env/installed").exists()


def test_a_folder_of_something_else_is_left_alone(clone):
    clone.venv.mkdir()
    (clone.venv / "thesis.tex").touch()
    out, err = clone.enter()
    assert "status=1" in out
    assert "something that is not an environment" in err
    assert [file.name for file in clone.venv.iterdir()] == ["thesis.tex"]


def test_moved_clone_is_made_anew(clone):
    clone.enter()
    clone.calls()
    moved = clone.root.with_name("moved")
    clone.root.rename(moved)
    clone.root, clone.venv = moved, moved / ".venv"
    out, _ = clone.enter()
    assert clone.calls() == FIRST
    assert f"venv={clone.venv} " in out


@pytest.mark.parametrize(
    ("uv", "python", "message"),
    [
        (False, "", "there is no python3.11 here. Install CPython 3.11"),
        (True, "/nonexistent", "PYTHON=/nonexistent is not a CPython 3.11"),
    ],
)
def test_missing_python_is_one_clear_message(clone, uv, python, message):
    if not uv:
        (clone.bin / "uv").unlink()
    clone.program("python3.11", "#!/bin/sh\nexit 127\n")
    out, err = clone.enter(PYTHON=python)
    assert "status=1" in out
    assert message in err


def test_other_machines_are_told_what_to_do(clone):
    clone.program("uname", "#!/bin/sh\necho Darwin arm64\n")
    out, err = clone.enter()
    assert "status=1" in out
    assert "Linux x86-64, this is Darwin arm64" in err
    assert "PLATEAU_VENV" in err


def test_second_process_waits_for_the_first(clone, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = clone.start(GATE=str(gate))
    with gate.open("w") as opened:  # opens when the first is in the midst of installing
        second = clone.start()
        assert "another process is setting up" in second.stderr.readline()
        opened.write("go on\n")
    assert "status=0" in first.communicate(timeout=60)[0]
    assert "status=0" in second.communicate(timeout=60)[0]
    assert clone.calls() == FIRST


def test_killed_set_up_is_repaired_by_the_next(clone, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = clone.start(GATE=str(gate))
    with gate.open("w"):
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate(timeout=60)
        clone.calls()
        out, err = clone.enter()  # nothing is left that holds the lock
    assert "waiting" not in err
    assert "status=0" in out
    assert clone.calls() == FIRST


DROPPED = "path.sh: PYTHONPATH is not needed here, and packages there could be others: dropped "


def test_the_environment_wins_over_pythonpath(clone):
    """Case 21: another k2 there. It is said once."""
    clone.enter()
    out, err = clone.enter(f". ./path.sh; {ENTER}", PYTHONPATH="/foreign:/more")
    assert out.endswith(f"pythonpath={clone.root}\n")
    assert err == f"{DROPPED}/foreign:/more\n"
    # As a shell has it that entered before.
    assert clone.enter(PYTHONPATH=str(clone.root)) == (out, "")


def test_in_an_environment_of_ones_own_pythonpath_comes_after_the_checkout(clone, tmp_path):
    (tmp_path / "own/bin").mkdir(parents=True)
    shutil.copy(clone.bin / "stand-in", tmp_path / "own/bin/python")
    own = {"PLATEAU_VENV": str(tmp_path / "own"), "PYTHONPATH": "/foreign:/more"}
    out, err = clone.enter(f". ./path.sh; {ENTER}", **own)
    assert out.endswith(f"pythonpath={clone.root}:/foreign:/more\n")
    assert err == ""


@pytest.mark.parametrize("name", ["a:b", "a\nb"])
def test_a_path_that_path_cannot_hold_is_said(clone, name):
    moved = clone.root.with_name(name)
    clone.root.rename(moved)
    clone.root = moved
    out, err = clone.enter()
    assert "status=1" in out and "pythonpath=\n" in out
    assert "cannot hold a path with a colon or a line break" in err
    assert clone.calls() == []


def test_other_shells(clone):
    clone.enter()
    out = {}
    for shell in filter(shutil.which, ("dash", "zsh")):
        command = [shell, "-c", '. ./path.sh; echo "$? ${VIRTUAL_ENV:-}"']
        environment = {"PATH": f"{clone.bin}:/usr/bin:/bin", "LOG": str(clone.log)}
        done = subprocess.run(
            command, cwd=clone.root, env=environment, capture_output=True, text=True, check=False
        )
        out[shell] = (done.stdout, done.stderr)
    said = "path.sh: this shell is neither bash nor zsh; start one of them first: bash\n"
    expected = {"dash": ("1 \n", said), "zsh": (f"0 {clone.venv}\n", "")}
    assert out == {shell: expected[shell] for shell in out}


# An interpreter whose pip has a setting, until it is taken away.
PIP = """#!/bin/bash
echo "$*" >>"$LOG"
setting=$(dirname "$0")/setting
case $* in
  "-m pip config list") cat "$setting" 2>/dev/null; env | grep ^PIP_ | sed 's/PIP_/:env:./' ;;
  "-m pip config unset install.target") rm "$setting" ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$(dirname "$0")/setting" "$3/bin" ;;
  *doctor.py) echo "the doctor is in" ;;
  "-m pip"*) if [ -s "$setting" ]; then exit 1; fi ;;
esac
"""


def test_settings_of_pip_that_send_packages_elsewhere(clone):
    (clone.bin / "uv").unlink()
    clone.program("python3.11", PIP)
    (clone.bin / "setting").write_text("global.index-url='x'\ninstall.target='/elsewhere'\n")
    out, err = clone.enter(PIP_USER="1")
    assert "status=1" in out
    assert "pip's settings send packages elsewhere: install.target='/elsewhere'" in err
    (mend,) = [line.split(": ", 2)[2] for line in err.splitlines() if "take that away" in line]
    script = f"{mend}; {ENTER}"
    (clone.bin / "setting").write_text("")
    out, _ = clone.enter(script, PIP_USER="1", PIP_TARGET="/elsewhere")
    assert "status=0" in out
