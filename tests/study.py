"""Where studies run without training: run.sh keeps its options, and says that all went well."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plateau.config import load
from plateau.results import Record
from plateau.training.experiment import default_config, options_class

ROOT = Path(__file__).parents[1]
Study = Callable[..., subprocess.CompletedProcess]
RUN_SH = """#!/usr/bin/env bash
set -euo pipefail
while [ "$1" != -- ]; do printf -v "$(echo "${1#--}" | tr - _)" '%s' "$2"; shift 2; done
shift
exp_dir=exp/$corpus/$recipe/$exp
mkdir -p "$exp_dir" $decoded
printf '%s\\n' "$@" >"$exp_dir/overrides"
"""


def make_study(folder: Path, script: str, record: Record) -> Study:
    """A function that runs a study in a folder, with a corpus espeak that has a set ``test``.

    Args:
        folder: empty.
        script: as seen from the project's folder.
        record: what each experiment's stages 6 to 8 find on ``test``.
    """
    for path in ROOT.iterdir():
        if path.name in ("egs", "local", "utils") or (path / "train.py").exists():
            (folder / path.name).symlink_to(path)
    for name in ("train", "dev", "test"):
        (folder / "data/espeak" / name).mkdir(parents=True)
        (folder / "data/espeak" / name / "wav.scp").touch()
    # Results are there already; each start of Python takes a second.
    (folder / "path.sh").write_text(
        f'python() {{ [ "$1" = local/results.py ] || {sys.executable} "$@"; }}\n'
        f"export PYTHONPATH={ROOT}\n"
    )
    train = {"set": "train", "method": "", "metric": "train_seconds", "value": 7.0}
    (folder / "run.sh").write_text(
        RUN_SH.replace("$decoded", f'"$exp_dir/decode_test_{record["method"]}"')
        + f"echo '{json.dumps([record, train])}' >\"$exp_dir/results.json\"\n"
    )
    (folder / "run.sh").chmod(0o755)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", script, *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    return run


def options_of(exp_dir: Path) -> Any:
    """The options that run.sh would have written to an experiment's config.yaml."""
    corpus, recipe = exp_dir.parts[-3:-1]
    overrides = (exp_dir / "overrides").read_text().splitlines()
    source = ROOT / default_config(corpus, recipe)
    return load(options_class(recipe), source, overrides=[*overrides, f"data_dir=data/{corpus}"])


def rows_of(table: str) -> list[str]:
    """The lines of experiments."""
    return [line for line in table.splitlines() if line.startswith("| exp/")]
