"""Experiments of vrnn whose models are small and untrained, on a few made-up sequences."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Several
from pathlib import Path

import numpy as np
import torch

from plateau.data import strokes
from plateau.data.sequences import About, Sequence, write_corpus, write_statistics
from plateau.io import write_json, write_text
from plateau.results import make_records
from plateau.training import checkpoint
from plateau.training.experiment import Experiment
from tests.job import run
from vrnn.model import SequenceModel, build_model
from vrnn.options import Options

HOSTILE = "<script>throw`x`</script>&\"'"
RATE = 8000
SIZES = [f"vrnn.{name}=6" for name in ("hidden_dim", "feature_dim", "latent_feature_dim")]
SIZES += ["vrnn.latent_dim=4", "vae.latent_dim=4", "vae.hidden_dim=6", "vrnn.output.components=2"]
ABOUT = {
    "strokes": About("strokes", strokes.FIELDS),
    "images": About("images", shape=(3, 4)),
    "frames": About("frames", sampling_rate=RATE),
}
NEEDED = {
    "strokes": [],
    "images": ["model=vae"],
    "frames": ["kind=frames", "frames.sampling_rate=8000", "vrnn.output.kind=gaussian"],
}


def values_of(kind: str, random: np.random.Generator, steps: int) -> np.ndarray:
    """Values (T, D) of one sequence."""
    if kind == "strokes":
        pen = (np.arange(steps) % 5 == 4).astype(float)
        return np.column_stack([random.normal(size=(steps, 2)), pen]).round(3)
    if kind == "images":
        return random.random((1, 12))
    return random.uniform(-0.5, 0.5, (steps, 10))


def make(
    kind: str, overrides: Several[str] = (), parameters: Mapping[str, torch.Tensor] | None = None
) -> tuple[Path, SequenceModel]:
    """Make a corpus of a kind and an experiment on it, in the current folder.

    Args:
        kind: strokes, images or frames.
        overrides: other options.
        parameters: of the model, in place of chance.

    Returns:
        the experiment's folder, and its model.
    """
    random, corpus = np.random.default_rng(0), Path("data", kind)
    prepared = corpus / "frames" if kind == "frames" else corpus
    sets = {
        name: [
            Sequence(f"{name}-{i}", values_of(kind, random, 12 + i), f"w{i % 2}", HOSTILE)
            for i in range(4)
        ]
        for name in ("train", "dev", "test")
    }
    sets["test"].append(Sequence(f"test-{HOSTILE}", values_of(kind, random, 9), "w", "ab"))
    write_corpus(prepared, ABOUT[kind], sets)
    write_statistics(prepared)
    exp_dir = Path("exp", kind, "vrnn", "x")
    names = ["--corpus", kind, "--recipe", "vrnn", "--exp-dir", str(exp_dir)]
    write_text(Path("default.yaml"), "")
    asked = [*SIZES, *NEEDED[kind], *overrides]
    run("local/configure.py", *names, "--config", "default.yaml", "--", *asked)
    experiment = Experiment(exp_dir)
    options = experiment.options(Options)
    torch.manual_seed(0)
    model = build_model(options).eval()
    model.load_state_dict(parameters or model.state_dict())
    experiment.final_model.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "options": dataclasses.asdict(options)}
    checkpoint.save(state, experiment.final_model)
    write_json(exp_dir / "results.json", make_records("test", "bound", bound_nats_per_step=-1.5))
    write_text(experiment.decode_dir("test", "bound") / "sequences.tsv", "id\n")
    epoch = '{"epoch": 1, "step": 7, "train_seconds": 90, "train_bound": -2, "dev_bound": -3}\n'
    write_text(exp_dir / "log" / "epochs.jsonl", epoch)
    return exp_dir, model
