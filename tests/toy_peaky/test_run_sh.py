"""toy_peaky/run.sh with a small catalogue: all experiments, in two processes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from toy_peaky.options import Options
from toy_peaky.training import train

ROOT = Path(__file__).parent.parent.parent

# Whoever reads it leaves his process id.
CATALOGUE = """
import os
from pathlib import Path
from toy_peaky.experiment import Experiment, Section
from toy_peaky.options import Options

(Path(__file__).parent / f"{os.getpid()}.pid").touch()


def last_loss(results):
    (runs,) = results.values()
    return str(runs[-1].loss[-1]), len(runs) == 2


SECTIONS = (
    Section("One", "Text.", (
        Experiment("two_seeds", "notes", "Two seeds.", last_loss,
            {"runs": Options(frames=6, target="0", init="normal", steps=3, seeds="0:2")}),
        Experiment("one_seed", "notes", "Two seeds.", last_loss,
            {"runs": Options(frames=6, target="0", init="normal", steps=STEPS, seeds="1")}),
    )),
    Section("Two", "", (
        Experiment("no_runs", "paper", "None.", lambda results: (str(len(results)), True)),
    )),
)
"""


@pytest.fixture
def clone(tmp_path) -> Path:
    """run.sh, run.py and another catalogue; the rest of the recipe is found in this clone's."""
    root = tmp_path / "clone"
    (root / "toy_peaky" / "catalogue").mkdir(parents=True)
    for name in ("run.sh", "run.py"):
        shutil.copy(ROOT / "toy_peaky" / name, root / "toy_peaky")
    shutil.copy(ROOT / "toy_peaky/catalogue/measures.py", root / "toy_peaky/catalogue")
    (root / "path.sh").write_text(f'export PYTHONPATH="{root}:{ROOT}"\n')
    return root


@pytest.fixture
def start(clone):
    """Start run.sh, in a group of processes that does not outlive the test."""
    jobs = []

    def start(steps: int, *words: str) -> subprocess.Popen:
        catalogue = clone / "toy_peaky" / "catalogue" / "__init__.py"
        catalogue.write_text(CATALOGUE.replace("STEPS", str(steps)))
        job = subprocess.Popen(
            [clone / "toy_peaky" / "run.sh", "--jobs", "2", *words],
            cwd=clone.parent,
            env={**os.environ, "COLUMNS": "90"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # In a terminal it is so; what is started in the background by a script ignores Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)


def test_everything_is_run_told_and_written(clone, start):
    job = start(3)
    said, complained = job.communicate(timeout=60)
    assert (job.returncode, complained) == (0, "")
    lines = said.splitlines()
    assert "2 of 3 claims hold." in lines
    assert max(map(len, lines[:-1])) <= 90
    page = clone / "exp/toy_peaky/report/index.html"
    assert lines[-1].startswith(f"{page} (") and lines[-1].endswith(" s)")
    assert "one_seed" in page.read_text()

    records = json.loads((clone / "exp/toy_peaky/claims.json").read_text())
    assert [(r["name"], r["section"], r["holds"]) for r in records] == [
        ("two_seeds", "One", True),
        ("one_seed", "One", False),
        ("no_runs", "Two", True),
    ]
    # Seed 1 is the last of both, and gives the same in other company and in another process.
    (alone,) = train(Options(frames=6, target="0", init="normal", steps=3, seeds="1"))
    assert [float(r["seen"]) for r in records] == [alone.loss[-1], alone.loss[-1], 0]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return status[0] != "Z"


def test_ctrl_c_ends_all_processes_without_a_word(clone, start):
    """A terminal sends it to each of them; these are still reading their modules."""
    job = start(10**7, "--report", "mine")
    while len(pids := list(clone.glob("toy_peaky/catalogue/*.pid"))) < 3:
        time.sleep(0.05)
        assert job.poll() is None
    os.killpg(job.pid, signal.SIGINT)
    said, complained = job.communicate(timeout=60)
    assert (job.returncode, said, complained) == (130, "", "")
    assert not any(is_running(int(path.stem)) for path in pids)
    assert list((clone.parent / "mine").iterdir()) == []
