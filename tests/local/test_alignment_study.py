"""The study's settings are options that recipes take, and its table has a line for each."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# In place of run.sh: resolves the options, and says that all went well.
RUN_SH = f"""#!/usr/bin/env bash
set -euo pipefail
while [ "$1" != -- ]; do printf -v "${{1#--}}" '%s' "$2"; shift 2; done
shift
exp_dir=exp/$corpus/$recipe/$exp
{sys.executable} {ROOT}/local/configure.py --corpus "$corpus" --recipe "$recipe" \\
  --exp-dir "$exp_dir" -- "$@"
record='{{"set": "test", "method": "lexicon", "metric": "wer", "value": 1.5}}'
echo "[$record]" >"$exp_dir/results.json"
"""


@pytest.fixture
def study(tmp_path):
    """A function that runs the study where nothing is trained, on a corpus with a set `test`."""
    for name in ("egs", "utils", "conformer_ctc", "transducer"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "local").mkdir()
    for name in ("alignment_study.sh", "compare.py", "sets.py"):
        shutil.copy(ROOT / "local" / name, tmp_path / "local")
    for name in ("train", "dev", "test"):
        (tmp_path / "data/espeak" / name).mkdir(parents=True)
        (tmp_path / "data/espeak" / name / "wav.scp").touch()
    (tmp_path / "path.sh").write_text(
        f'python() {{ {sys.executable} "$@"; }}\nexport PYTHONPATH={ROOT}\n'
    )
    (tmp_path / "run.sh").write_text(RUN_SH)
    (tmp_path / "run.sh").chmod(0o755)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", "local/alignment_study.sh", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_every_setting_is_an_experiment_of_its_own(study, tmp_path):
    settings = "random ctc prior0.05 viterbi delay silence rnnt rna"
    done = study("--settings", settings, "--seeds", "1 2", "--", "training.epochs=3")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| exp/")]
    assert len(rows) == 15
    assert all("(median of 2 seeds, min to max) | " in row for row in rows)
    assert all("| 1.50 (1.50 to 1.50) |" in row for row in rows)

    def options(recipe, name):
        path = tmp_path / f"exp/espeak/{recipe}/study-{name}-seed2/config.yaml"
        return yaml.safe_load(path.read_text())

    plain = options("conformer_ctc", "conformer-ctc")
    assert (plain["training"]["seed"], plain["training"]["epochs"]) == (2, 3)
    assert plain["encoder"]["conformer"]["identity_start"]
    assert not options("conformer_ctc", "conformer-random")["encoder"]["conformer"][
        "identity_start"
    ]
    prior = options("conformer_ctc", "blstm-prior0.05")
    assert prior["encoder"]["kind"] == "blstm" and prior["encoder"]["blstm"]["subsampling"] == 2
    assert prior["loss"]["prior"]["estimator"] == "moving_average"
    assert prior["loss"]["prior"]["scale"] == 0.05 and prior["loss"]["after_steps"] > 0
    for setting, name in (
        ("viterbi", "viterbi"),
        ("delay", "delay_penalty"),
        ("silence", "topology"),
    ):
        loss = options("conformer_ctc", f"conformer-{setting}")["loss"]
        assert loss[name] != plain["loss"][name]
        same = {*loss} - {name, "after_steps", "warm_up_steps"}
        assert all(loss[other] == plain["loss"][other] for other in same)
    done = study("--encoders", "local", "--settings", "ctc rna", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    for recipe, setting in (("conformer_ctc", "ctc"), ("transducer", "rna")):
        local = options(recipe, f"local-{setting}")["encoder"]
        assert local["kind"] == "conformer" and local["conformer"]["attention_context"] == 1
    for setting in ("rnnt", "rna"):
        assert options("transducer", f"conformer-{setting}")["loss"]["topology"] == setting


def test_mistakes_are_said_in_a_line(study):
    done = study("--settings", "ctc priors", "--seeds", "1", "--encoders", "conformer")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("configure.py: ")
    done = study("--encoders", "tdnn", "--seeds", "1")
    assert done.stderr == "alignment_study.sh: --encoders has no 'tdnn'\n"
    done = study("--settings", "peaky", "--seeds", "1")
    assert done.returncode == 1
    assert done.stderr == "alignment_study.sh: --settings has no 'peaky'\n"
