"""What TensorBoard shows of a few utterances after each epoch: how peaky a model becomes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from plateau.alignment.files import Alignment
from plateau.alignment.measures import path_runs, sharpness_and_entropy
from plateau.data.tokens import BLANK_ID

SHOWN = 0.05  # labels whose posterior is never larger are not drawn


def peakiness(log_probs: Tensor, lengths: Tensor, tokens: Sequence[str]) -> dict[str, float]:
    """How peaky the likeliest labels of each frame are; see `plateau.alignment.measures`.

    Args:
        log_probs: (N, T, V), normalised.
        lengths: (N,).
        tokens: names of the labels.
    """
    paths = [
        path[:length].tolist()
        for path, length in zip(log_probs.argmax(2), lengths.tolist(), strict=True)
    ]
    runs = [run.end - run.start for path in paths for run in path_runs(path, 1.0, tokens)]
    sharpness, entropy = sharpness_and_entropy(log_probs, lengths)  # (N,) both
    weights = lengths.to(log_probs.device) / lengths.sum()
    values = {
        "blank_fraction": sum(path.count(BLANK_ID) for path in paths) / int(lengths.sum()),
        "sharpness": float((weights * sharpness).sum()),
        "entropy_nats": float((weights * entropy).sum()),
    }
    if runs:
        values["label_run_frames"] = float(np.mean(runs))
    return values


def posterior_figure(
    log_probs: Tensor, alignment: Alignment, labels: Sequence[int], tokens: Sequence[str]
) -> Figure:
    """Posteriors over frames, and above them the transcript's tokens where the best path has them.

    Args:
        log_probs: (T, V) of an utterance; blank is grey.
        alignment: of its transcript; without frames where no path fits.
        labels: the transcript's token ids.
        tokens: names of the labels.
    """
    probs = log_probs.exp().cpu().numpy()  # (T, V)
    axes = _axes(len(probs))
    for label in np.flatnonzero(probs.max(0) >= SHOWN):
        colour = "0.6" if label == BLANK_ID else f"C{label % 10}"
        axes.plot(probs[:, label], color=colour, linewidth=1)
    _mark(axes, alignment, labels, tokens, 1.02)
    axes.set(ylim=(0, 1.12), ylabel="posterior")
    return axes.figure


def lattice_figure(
    log_probs: Tensor, alignment: Alignment, labels: Sequence[int], tokens: Sequence[str]
) -> Figure:
    """How likely a transducer emits the next token of the transcript, by frame and tokens before.

    Args:
        log_probs: (T, U) of an utterance, of each token after those before it.
        alignment: of its transcript, drawn as dots; without frames where no path fits.
        labels: the transcript's U token ids.
        tokens: names of the labels.
    """
    axes = _axes(len(log_probs))
    image = log_probs.exp().cpu().numpy().T  # (U, T)
    axes.imshow(image, aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1)
    axes.plot(alignment.frames, range(len(alignment.frames)), ".", color="C1", markersize=3)
    _mark(axes, alignment, labels, tokens, len(labels) - 0.3)
    axes.set(ylabel="tokens before", ylim=(-0.5, len(labels) * 1.08))
    return axes.figure


def _axes(num_frames: int):
    figure = Figure(figsize=(min(24.0, 2 + num_frames / 16), 3), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0, num_frames - 1), xlabel="frame of the encoder")
    return axes


def _mark(axes, alignment, labels, tokens, height) -> None:
    for frame, label in zip(alignment.frames, labels, strict=False):
        axes.text(frame, height, tokens[label], ha="center", fontsize=7, color=f"C{label % 10}")
