"""path.sh and utils/make_venv.sh, with a stand-in for uv: marks, locks, repair; no network."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each call is a line in $LOG. Installing fails if $FAIL is set, and waits for $GATE (a FIFO). There
# is a torch without CUDA where $CPU is set.
UV = r"""#!/bin/bash
if [ "$1" = python ]; then exit 1; fi
echo "uv $1 $2" >>"$LOG"
case $1 in
  venv)
    mkdir -p "${!#}/bin"
    cp "$STAND_IN" "${!#}/bin/python"
    ;;
  pip)
    wanted=$(cat "${!#}")
    if [[ $wanted == pip==?\ --hash=sha256:? ]]; then exit 0; fi
    if [[ $wanted == torch==*+cpu* ]]; then [ -n "$CPU" ]; exit; fi
    if [ -n "$GATE" ]; then read -r <"$GATE"; fi
    if [ -n "$FAIL" ]; then echo "no network" >&2; exit 1; fi
    echo "$wanted" >"$(dirname "$4")/../installed"
    ;;
esac
"""
PYTHON = """#!/bin/bash
case $1 in
  *doctor.py) echo "the doctor is in" ;;
  *build_kaldifeat.py) echo kaldifeat >>"$LOG"; exit "${KALDIFEAT:-0}" ;;
esac
"""
SCRIPTS = ("choose_environment.sh", "find_python.sh", "make_venv.sh")
ENTER = 'before=$-; . ./path.sh; echo "status=$? flags=$([ "$before" = $- ] && echo same)"; '
ENTER += 'echo "venv=${VIRTUAL_ENV:-} path=$PATH pythonpath=${PYTHONPATH:-}"'


# The interpreters that are there tell their version, as an environment's does not need to.
INTERPRETER = "#!/bin/sh\necho {version}\n"
SMI = "#!/bin/sh\necho '{capability}'\n"
CLASSIC = "pip==1 --hash=sha256:0\ntorch==1.13.1 --hash=sha256:1\n"
CURRENT = """# without a GPU: torch==2+cpu --hash=sha256:2
nvidia-cublas==13 --hash=sha256:3
pip==2 --hash=sha256:4
torch==2 --hash=sha256:5
torchmetrics==1 --hash=sha256:6
triton==3 --hash=sha256:7
"""


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
        (self.root / "requirements").mkdir()
        for name in ("path.sh", *(f"utils/{script}" for script in SCRIPTS)):
            shutil.copy(ROOT / name, self.root / name)
        (self.root / "requirements/classic.txt").write_text(CLASSIC)
        (self.root / "requirements/current.txt").write_text(CURRENT)
        self.program("python3.11", INTERPRETER.format(version="3.11"))
        for newer in ("python3.12", "python3.13"):  # where the machine has one, too
            self.program(newer, INTERPRETER.format(version=""))
        self.program("nvidia-smi", "#!/bin/sh\nexit 1\n")
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


FITS = "classic (CPython 3.11 is here, and no GPU that torch 1.13 has no code for)"
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
    assert clone.enter() == (out, f"path.sh: the environment is {FITS}\n")
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
    (clone.root / "requirements/current.txt").write_text("torch==2.1\n")
    clone.enter()
    assert clone.calls() == []
    (clone.root / "requirements/classic.txt").write_text(CLASSIC.replace("1.13.1", "1.13.2"))
    _, err = clone.enter()
    assert "requirements/classic.txt changed" in err
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
    (clone.root / "requirements/classic.txt").write_text(CLASSIC.replace("1.13.1", "1.13.2"))
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
        (False, "", "there is no CPython 3.13/3.12/3.11 here. Install one"),
        (True, "/nonexistent", "PYTHON=/nonexistent is not a CPython 3.13/3.12/3.11 that runs"),
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
        said = [second.stderr.readline() for _ in range(2)]
        assert "another process is setting up" in said[1]
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
    assert err == f"path.sh: the environment is {FITS}\n{DROPPED}/foreign:/more\n"
    # As a shell has it that entered before.
    inherited = {"PYTHONPATH": str(clone.root), "VIRTUAL_ENV": str(clone.venv)}
    assert clone.enter(**inherited) == (out, "")


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
    entered = (f"0 {clone.venv}\n", f"path.sh: the environment is {FITS}\n")
    expected = {"dash": ("1 \n", said), "zsh": entered}
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
  "-c "*) echo 3.11 ;;
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


@pytest.mark.parametrize(
    ("capability", "python", "variables", "name", "why"),
    [
        ("8.6", "3.11", {}, "classic", "CPython 3.11 is here"),
        ("8.9", "3.11", {}, "classic", "CPython 3.11 is here"),
        ("8.6\n9.0", "3.11", {}, "current", "a GPU of compute capability 9.0, which"),
        ("12.0\n8.6", "3.11", {}, "current", "a GPU of compute capability 12.0, which"),
        ("[N/A]", "3.11", {}, "classic", "CPython 3.11 is here"),
        ("9.0", "3.11", {"PLATEAU_ENV": "classic"}, "classic", "PLATEAU_ENV"),
        ("", "3.11", {"PLATEAU_ENV": "current"}, "current", "PLATEAU_ENV"),
        ("", "3.12", {}, "current", "there is no CPython 3.11 here"),
        ("", "3.13", {}, "current", "there is no CPython 3.11 here"),
        ("", "3.11", {"PYTHON": "python3.13"}, "current", "PYTHON=python3.13 is not a CPython 3."),
    ],
)
def test_the_environment_that_fits_is_taken(clone, capability, python, variables, name, why):
    if capability:
        clone.program("nvidia-smi", SMI.format(capability=capability))
    clone.program("python3.11", "#!/bin/sh\nexit 127\n")
    for version in {python, variables.get("PYTHON", "").removeprefix("python")} - {""}:
        clone.program(f"python{version}", INTERPRETER.format(version=version))
    out, err = clone.enter(**variables)
    folder = ".venv" if name == "classic" else ".venv-current"
    assert f"venv={clone.root}/{folder} " in out
    assert err.startswith(f"path.sh: the environment is {name} ({why}")
    assert clone.calls()[-3:] == UPDATE
    # Once it is there, it is only entered.
    again = clone.enter(**variables)
    assert again == (out, err.splitlines()[0] + "\n")
    assert clone.calls() == []


def test_an_unknown_environment_is_refused(clone):
    out, err = clone.enter(PLATEAU_ENV="modern")
    assert "status=1" in out
    assert err == "path.sh: PLATEAU_ENV is 'modern'; it must be classic or current, or not set\n"
    assert clone.calls() == []


def test_a_place_keeps_its_environment_until_another_is_named(clone, tmp_path):
    """On a login node without a GPU and on a node with one, say."""
    there = {"PLATEAU_VENV": str(tmp_path / "env")}
    clone.enter(**there)
    clone.calls()
    clone.program("nvidia-smi", SMI.format(capability="9.0"))
    _, err = clone.enter(**there)
    assert err == f"path.sh: the environment is classic (as {tmp_path}/env was made)\n"
    assert clone.calls() == []
    clone.enter(PLATEAU_ENV="current", **there)
    assert clone.calls()[0] == FIRST[0]  # made anew
    _, err = clone.enter(**there)
    assert err == f"path.sh: the environment is current (as {tmp_path}/env was made)\n"


def test_an_environment_from_before_there_were_two_is_brought_up_to_date(clone):
    clone.enter()
    mark = (clone.venv / ".plateau").read_text()
    (clone.venv / ".plateau").write_text(mark.replace("requirements/classic.txt", "-"))
    clone.calls()
    clone.enter()
    assert clone.calls() == UPDATE


@pytest.mark.parametrize(("offered", "gpu"), [(True, False), (False, False), (True, True)])
def test_cuda_stays_away_where_no_gpu_is_and_a_torch_without_it_is_offered(clone, offered, gpu):
    if gpu:
        clone.program("nvidia-smi", SMI.format(capability="9.0"))
    _, err = clone.enter(PLATEAU_ENV="current", CPU="yes" if offered else "")
    installed = (clone.root / ".venv-current/installed").read_text().splitlines()
    names = [line.split("==")[0] for line in installed if not line.startswith("#")]
    if offered and not gpu:
        assert names == ["pip", "torchmetrics"]
        assert "no GPU here: torch without CUDA" in err
    else:
        assert names == ["nvidia-cublas", "pip", "torch", "torchmetrics", "triton"]
        assert "without CUDA" not in err
