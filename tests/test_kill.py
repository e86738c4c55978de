"""`kill -9` at any moment of any stage, and ./run.sh again: as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plateau.io import read_json

ROOT = Path(__file__).parent.parent
COMMAND = """./run.sh --exp test --
    corpus.hours=0.02 corpus.dev_minutes=0.3 corpus.test_minutes=0.3 loading.max_duration=10
    training.epochs=3 training.checkpoint_every=2 training.average_last=2
    encoder.conformer.dim=16 encoder.conformer.num_layers=1 encoder.conformer.feedforward_dim=16"""
TIMES = ("rtf_batch_16", "rtf_batch_1", "train_seconds")


def clone(folder: Path) -> Path:
    """The working tree without data and experiments."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PLATEAU_VENV": sys.prefix, "OMP_NUM_THREADS": "1"}


def outcome(folder: Path) -> tuple[list, dict[str, torch.Tensor]]:
    exp = folder / "exp" / "espeak" / "conformer_ctc" / "test"
    records = [r for r in read_json(exp / "results.json") if r["metric"] not in TIMES]
    return records, load_file(exp / "checkpoints" / "averaged.safetensors")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flock") is None, reason="run.sh needs flock")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git lists the files to copy")
def test_killed_again_and_again_gives_the_same_results(tmp_path: Path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("k2")
    undisturbed, disturbed = clone(tmp_path / "undisturbed"), clone(tmp_path / "disturbed")
    subprocess.run(COMMAND.split(), cwd=undisturbed, env=environment(), check=True)

    # Each time a little later, so that every stage is hit somewhere and each is passed in the end.
    kills = 0
    while True:
        run = subprocess.Popen(
            COMMAND.split(), cwd=disturbed, env=environment(), start_new_session=True
        )
        try:
            assert run.wait(timeout=2 + 0.7 * kills) == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            kills += 1
    assert kills > 3

    records, model = outcome(undisturbed)
    records_after, model_after = outcome(disturbed)
    assert {r["set"] for r in records} == {"dev", "test_clean", "test_other"}
    assert records_after == records
    assert model_after.keys() == model.keys()
    for name, value in model.items():
        assert torch.equal(value, model_after[name]), name
