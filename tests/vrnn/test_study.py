"""The models of the study are what their names say, of equal sizes; its table has a line each."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plateau.config import load
from plateau.models.vrnn import Vrnn
from vrnn.options import Options

ROOT = Path(__file__).parents[2]
# In place of run.sh: resolves the options, and says that all went well.
RUN_SH = f"""#!/usr/bin/env bash
set -euo pipefail
while [ "$1" != -- ]; do printf -v "$(echo "${{1#--}}" | tr - _)" '%s' "$2"; shift 2; done
shift
exp_dir=exp/$corpus/$recipe/$exp
{sys.executable} {ROOT}/local/configure.py --corpus "$corpus" --recipe "$recipe" \\
  --exp-dir "$exp_dir" -- "$@" >/dev/null
mkdir -p "$exp_dir/decode_test_bound" "$exp_dir/log"
record='{{"set": "test", "method": "bound", "metric": "kl_nats_per_step", "value": 0.25}}'
echo "[$record]" >"$exp_dir/decode_test_bound/metrics.json"
echo '{{"epoch": 1, "step": 9, "train_seconds": 7.0}}' >"$exp_dir/log/epochs.jsonl"
"""


@pytest.fixture
def study(tmp_path):
    """A function that runs the study where nothing is trained."""
    (tmp_path / "egs").symlink_to(ROOT / "egs")
    (tmp_path / "utils").symlink_to(ROOT / "utils")
    (tmp_path / "vrnn").mkdir()
    shutil.copy(ROOT / "vrnn/study.sh", tmp_path / "vrnn")
    shutil.copytree(ROOT / "vrnn/conf", tmp_path / "vrnn/conf")
    shutil.copy(ROOT / "vrnn/options.py", tmp_path / "vrnn")
    (tmp_path / "local").mkdir()
    for name in ("compare.py", "results.py"):
        shutil.copy(ROOT / "local" / name, tmp_path / "local")
    (tmp_path / "path.sh").write_text(
        f'python() {{ {sys.executable} "$@"; }}\nexport PYTHONPATH={ROOT}\n'
    )
    (tmp_path / "run.sh").write_text(RUN_SH)
    (tmp_path / "run.sh").chmod(0o755)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", "vrnn/study.sh", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(("corpus", "dim", "number"), [("strokes", 3, 7), ("espeak", 200, 6)])
def test_all_models_have_as_many_parameters(study, tmp_path, corpus, dim, number):
    done = study("--corpus", corpus, "--seeds", "1 2")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| exp/")]
    assert len(rows) == number
    assert all("(median of 2) |" in row and row.endswith("| 0.250 | 7 |") for row in rows)

    sizes = {}
    for folder in sorted((tmp_path / f"exp/{corpus}/vrnn").glob("*-seed2")):
        options = load(Options, folder / "config.yaml")
        assert options.training.seed == 2
        name = folder.name.removeprefix("study-").removesuffix("-seed2")
        model, output = options.vrnn, options.vrnn.output
        assert name.startswith(f"{model.kind}_") or name == model.kind
        assert ("_ar" in name) == output.autoregressive
        assert ("gmm" in name) == (output.components > 1 and output.kind != "gaussian")
        sizes[name] = sum(p.numel() for p in Vrnn(dim, model).parameters())
    middle = (max(sizes.values()) + min(sizes.values())) / 2
    assert all(abs(size / middle - 1) <= 0.05 for size in sizes.values()), sizes


def test_mistakes_are_said_in_a_line(study):
    done = study("--models", "rnn_gauss hmm")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "study.sh: --models has no 'hmm'\n"
    done = study("--seeds", " ")
    assert done.returncode == 1
    assert done.stderr == "study.sh: --models and --seeds name no experiment\n"
