"""A few drawings or images in data/, and an experiment with them in the current folder."""

from pathlib import Path

import numpy as np

from plateau.data.sequences import About, Sequence, write_corpus
from tests.job import run

SETS = {"train": 12, "dev": 4, "test": 4}
SMALL = ("training.epochs=2", "training.average_last=1", "decoding.importance_samples=3")
VRNN = {"hidden_dim": 4, "latent_dim": 2, "feature_dim": 4, "latent_feature_dim": 4}
VAE = {"latent_dim": 2, "hidden_dim": 4, "channels": 2}
STROKES = ("vrnn.hidden_dim=16", "vrnn.latent_dim=2", "vrnn.feature_dim=8", "loading.batch_size=4")
STROKES += ("vrnn.latent_feature_dim=8", "vrnn.output.components=2")
IMAGES = ("model=vae", "vae.latent_dim=2", "vae.hidden_dim=8", "loading.binarise=dynamic")
IMAGES += ("loading.batch_size=4",)


def strokes(random: np.random.Generator, steps: int) -> np.ndarray:
    """Zigzags to the right with a pen lift every six steps, (T, 3)."""
    moves = random.normal([2.0, 0.0], [1.0, 3.0], (steps, 2))
    pen = (np.arange(steps) % 6 == 5)[:, None]
    pen[-1] = True
    return np.hstack([moves, pen])


def images(random: np.random.Generator, steps: int) -> np.ndarray:
    """Grey images of 4 × 4 pixels, (1, 16)."""
    return random.random((1, 16))


def make_corpus(kind: str, folder: Path) -> None:
    """Write a corpus of strokes or images, and check its values."""
    random = np.random.default_rng(0)
    about = About(kind, ("dx", "dy", "pen")) if kind == "strokes" else About(kind, shape=(4, 4))
    draw = strokes if kind == "strokes" else images
    sets = {
        name: [
            Sequence(f"{name}-{n}", draw(random, int(random.integers(8, 20))), f"{name}{n % 2}")
            for n in range(number)
        ]
        for name, number in SETS.items()
    }
    write_corpus(folder, about, sets)
    run("local/check_sequences.py", str(folder))


def start(kind: str, *overrides: str) -> Path:
    """Write the corpus data/toy, and return the folder of an experiment with it."""
    make_corpus(kind, Path("data/toy"))
    small = STROKES if kind == "strokes" else IMAGES
    exp_dir = Path("exp/toy/vrnn/x")
    Path("none.yaml").touch()
    names = ["--corpus", "toy", "--recipe", "vrnn", "--exp-dir", str(exp_dir)]
    run("local/configure.py", *names, "--config", "none.yaml", "--", *SMALL, *small, *overrides)
    return exp_dir
