"""Pictures of toy experiments: each function draws an experiment's outcome.

A label has the same colour throughout; blank (or silence) is grey. A figure's ``get_label()`` is
its caption: a sentence that says what is seen, and others that say how to read it.
"""

import dataclasses
import io
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from plateau.graphs.counts import chain_count_label, chain_count_paths
from plateau.graphs.topology import STANDARD, standard_segments
from toy_peaky.experiment import Outcome
from toy_peaky.graph_pictures import expression
from toy_peaky.layout import (
    BLANK,
    COLOURS,
    DASHES,
    INK,
    PALE_INK,
    STYLE,
    WIDTH,
    heading,
    label_colour,
    label_handles,
    label_name,
    legend,
    line_style,
    panels,
    titled_panels,
)
from toy_peaky.models import initial_parameters
from toy_peaky.options import Options
from toy_peaky.training import Result, Snapshot, loss_and_gradient

MAX_COLUMNS = 5  # steps that `posteriors_over_time` shows
MAX_FRAMES = 40  # of an animation
BINS = 20  # of histograms over 0 … 1, as in the notes
GRID = 31  # points along each side of a loss map,
REACH = 5.0  # which goes from -REACH to REACH
MAX_PATHS = 8  # runs, and
MAX_PATH = 200  # their steps, drawn in a loss map
COUNTED_FRAMES = 40  # T of `label_shares_of_counts`
NEAR_ZERO = 1.0  # nats; `ratio_over_length` counts the steps until the loss is below
TWO_PARAMETERS = {"bias": "bias", "model_free": "theta", "gen_model_free": "theta"}


def posteriors_over_time(outcome: Outcome) -> Figure:
    """Posteriors and soft alignments of the first seed: a row per setup, a column per snapshot."""
    setups = outcome.experiment.setups
    results = {name: outcome.results[name][0] for name in setups}
    steps = {name: _spread(sorted(r.snapshots), MAX_COLUMNS) for name, r in results.items()}
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(
            len(setups), max(map(len, steps.values())), 1.3, top=0.2, above=0.55, below=0.25
        )
        for row, (name, options) in zip(axes, setups.items(), strict=True):
            result = results[name]
            heading(figure, row[0], f"{name} (seed {result.seed})")
            for axis, step in zip(row, steps[name], strict=False):
                _draw_frames(axis, result.snapshots[step], options)
                _strips(axis, options, result if step == steps[name][-1] else None)
                axis.set_title(f"step {step}, loss {result.loss[step]:.3g}", color=PALE_INK)
                if axis is not row[0]:
                    axis.set_yticklabels([])
            for axis in row[len(steps[name]) :]:
                axis.remove()
            row[0].annotate(
                "frame", (0, 0), (-8, -4), xycoords="axes fraction", textcoords="offset points",
                ha="right", va="top", color=PALE_INK,
            )  # fmt: skip
        legend(figure, [*label_handles(*setups.values()), *_line_handles()])
    figure.set_label(
        "Posteriors and soft alignments over time, as training goes on. Solid lines are what the "
        "model says, dashed lines the share of each label in the alignments that the target "
        "allows, weighted by the model: that is where training pulls it. The strips below are the "
        "ground truth, where there is one, and at the last step the best alignment (Viterbi)."
    )
    return figure


def animation(outcome: Outcome) -> bytes:
    """A GIF of the first setup's first run, from its snapshots: posteriors over time."""
    name, options = next(iter(outcome.experiment.setups.items()))
    result = outcome.results[name][0]
    steps = _spread(sorted(result.snapshots), MAX_FRAMES)
    images = []
    with matplotlib.rc_context(STYLE):
        figure, ((axis,),) = panels(1, 1, 2.0, left=0.75, top=0.3, above=0.62)
        heading(figure, axis, f"{name} (seed {result.seed})")
        legend(figure, [*label_handles(options), *_line_handles()])
        canvas = FigureCanvasAgg(figure)
        for step in steps:
            axis.clear()
            _draw_frames(axis, result.snapshots[step], options)
            _strips(axis, options, result if step == steps[-1] else None)
            axis.set_title(f"step {step}, loss {result.loss[step]:.3g}", color=PALE_INK)
            axis.set_xlabel("frame")
            canvas.draw()
            images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # One palette for all images; a pixel that does not change then costs nothing.
    palette = images[-1].quantize(48)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [200] * (len(frames) - 1) + [3000]  # ms
    file = io.BytesIO()
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def blank_histogram(outcome: Outcome) -> Figure:
    """Of how many seeds which share of the posteriors is blank's, for each setup."""
    setups = outcome.experiment.setups
    with matplotlib.rc_context(STYLE):
        figure, axes = titled_panels(list(setups), 3, 1.5, gap=0.45)
        number = [len(outcome.results[name]) for name in setups]
        for axis, (name, options) in zip(axes, setups.items(), strict=True):
            shares = [result.avg_softmax[options.blank] for result in outcome.results[name]]
            counts, edges = np.histogram(np.clip(shares, 0, 1), BINS, (0, 1))
            axis.bar(edges[:-1], counts, 1 / BINS, align="edge", color=BLANK, edgecolor="white")
            runs = f"{len(shares)} run" + "s" * (len(shares) > 1)
            name = label_name(options.blank, options)
            axis.set(xlim=(0, 1), xlabel=f"average posterior of {name}, {runs}")
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        for axis, runs in zip(axes, number, strict=True):  # those of equally many runs look alike
            highest = max(a.dataLim.y1 for a, n in zip(axes, number, strict=True) if n == runs)
            axis.set_ylim(0, 1.05 * highest)
            axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes[0].set_ylabel("runs")
    figure.set_label(
        "How much of the time goes to blank (or silence) at the end of training, in runs that "
        f"start differently. Each bar counts runs; {BINS} bars between 0 and 1."
    )
    return figure


def loss_curves(outcome: Outcome) -> Figure:
    """Loss against step for each setup: median over the seeds, and their range."""
    results = outcome.results
    curves = {
        name: np.array([result.loss for result in results[name]])  # (R, steps)
        for name in outcome.experiment.setups
    }
    with matplotlib.rc_context(STYLE):
        labels = {name: textwrap.fill(name, 34) for name in curves}
        lines = sum(1 + label.count("\n") for label in labels.values())
        figure, ((axis,),) = panels(1, 1, max(2.8, 0.2 * lines), left=0.8, above=0.1, right=2.9)
        for number, (name, losses) in enumerate(curves.items()):
            colour, style = line_style(number)
            steps = np.arange(losses.shape[1])
            axis.plot(steps, np.median(losses, 0), color=colour, ls=style, label=labels[name])
            if len(losses) > 1:
                axis.fill_between(
                    steps, losses.min(0), losses.max(0), color=colour, alpha=0.12, lw=0
                )
        every = np.concatenate([losses.ravel() for losses in curves.values()])
        lowest, highest = every.min(), every.max()
        if highest > 10 * max(1.0, lowest):
            axis.set_yscale("symlog", linthresh=1.0, linscale=0.6)
            axis.yaxis.set_major_formatter("{x:g}")
        if lowest >= 0:
            axis.set_ylim(bottom=-0.02 * highest if axis.get_yscale() == "linear" else -0.1)
        axis.set_xlabel("step")
        axis.set_ylabel("loss (nats)")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
    figure.set_label(
        "The loss during training. Lines are medians over the seeds, shades reach from the lowest "
        "to the highest run. Where it spans decades, the scale is linear below 1 and logarithmic "
        "above."
    )
    return figure


def loss_map(outcome: Outcome) -> Figure:
    """Loss and direction of descent over both parameters of each setup, and the runs' paths.

    Raises:
        ValueError: a setup's model does not have two parameters.
    """
    setups = outcome.experiment.setups
    with matplotlib.rc_context(STYLE):
        figure, axes = titled_panels(list(setups), 2, 2.9, gap=1.5, right=1.0)
        for axis, options in zip(axes, setups.values(), strict=True):
            side, losses, gradients = loss_grid(options)
            lowest, highest = losses.min(), losses.max()
            levels = lowest + (highest - lowest) * np.linspace(0, 1, 17) ** 2  # finer at the bottom
            # Colours keep to the light half, so that dark lines are seen on them.
            norm = PowerNorm(0.5, lowest, lowest + 2 * (highest - lowest))
            filled = axis.contourf(side, side, losses, levels, cmap="Blues", norm=norm)
            u, v = -gradients.transpose(2, 0, 1)
            axis.streamplot(side, side, u, v, density=0.8, color=INK, linewidth=0.6, arrowsize=0.7)
            for path in descent(options)[1].transpose(1, 0, 2):  # (steps, 2)
                axis.plot(*path.T, color=COLOURS[3], lw=1.6, clip_on=True)
                axis.plot(*path[0], "o", color=COLOURS[3], ms=5, mec="white", clip_on=True)
                axis.plot(*path[-1], "s", color=COLOURS[3], ms=5, mec="white", clip_on=True)
            axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
            names = [label_name(label, options) for label in (0, 1)]
            if options.model == "bias":
                axis.set(xlabel=f"bias of {names[0]}", ylabel=f"bias of {names[1]}")
            else:
                axis.set(xlabel=rf"$\theta$ of {names[0]}", ylabel=rf"$\theta$ of {names[1]}")
            box = axis.get_position()
            bar = figure.add_axes(
                [box.x1 + 0.1 / WIDTH, box.y0, 0.1 / WIDTH, box.height], label="colours"
            )
            figure.colorbar(filled, cax=bar, spacing="uniform", ticks=levels[::4], format="{x:.1f}")
            bar.set_ylabel("loss (nats)")
    figure.set_label(
        "The loss over the model's two parameters, and where gradient descent goes. The darker, "
        "the higher the loss; thin lines follow minus the gradient. Red are the first runs, from "
        f"their start (circle) to their end (square), or to step {MAX_PATH}."
    )
    return figure


def loss_grid(options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of a model with two parameters, over a square.

    Returns:
        the side (GRID,), the losses (GRID, GRID) and their gradients (GRID, GRID, 2). The first
        dimension is the second parameter (blank's), as matplotlib wants it: rows go up.

    Raises:
        ValueError: the model does not have two parameters.
    """
    side = np.linspace(-REACH, REACH, GRID)
    points = np.stack(np.meshgrid(side, side), axis=-1)  # (GRID, GRID, 2)
    losses, gradients = _at(options, torch.from_numpy(points).flatten(0, 1))
    return side, losses.numpy().reshape(GRID, GRID), gradients.numpy().reshape(points.shape)


def descent(options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Where gradient descent takes the first runs of a model with two parameters.

    Returns:
        losses (steps, R) and parameters (steps, R, 2) before each update; R is 0 where training is
        more than plain gradient descent (Adam, noise, a prior that remembers or changes).
    """
    name = TWO_PARAMETERS[options.model]
    extras = ("gradient_noise", "weight_noise", "logits_time_dropout", "prior_momentum")
    plain = options.optimizer == "sgd" and options.prior_scale_end is None
    if not plain or any(getattr(options, extra) for extra in extras):
        return np.zeros((0, 0)), np.zeros((0, 0, 2))
    starts = [
        initial_parameters(options, {name: (2,)}, seed)[name]
        for seed in options.seed_list[:MAX_PATHS]
    ]
    points = [torch.stack(starts)]  # (R, 2) each
    losses = []
    while len(losses) < min(options.steps, MAX_PATH):
        loss, gradient = _at(options, points[-1])
        losses.append(loss)
        points.append(points[-1] - options.lr * gradient)
    return torch.stack(losses).numpy(), torch.stack(points[:-1]).numpy()


def _at(options: Options, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (R,) and gradients (R, 2) at points (R, 2)."""
    if options.model not in TWO_PARAMETERS or options.num_labels != 2:
        raise ValueError(f"{options.model} with {options.num_labels} labels: not two parameters")
    name = TWO_PARAMETERS[options.model]
    options = dataclasses.replace(options, seeds=f"0:{len(points)}")
    losses, gradients = loss_and_gradient(options, {name: points})
    return losses, gradients[name]


def ratio_over_length(outcome: Outcome) -> Figure:
    """Shares of labels and blank, and the steps that training takes, against frames per label.

    Setups are a target of N labels in T frames; the experiment has a snapshot of step 0.
    """
    setups, results = outcome.experiment.setups, outcome.results
    options = next(iter(setups.values()))
    ratios = [o.num_frames / sum(map(len, o.words)) for o in setups.values()]
    before = np.stack([_mean_alignment(results[name], first=True) for name in setups])
    after = np.stack([_mean_alignment(results[name], first=False) for name in setups])
    with matplotlib.rc_context(STYLE):
        figure, ((left, right),) = panels(1, 2, 2.6, top=0.35, above=0.1, gap=0.8)
        for label in range(options.num_labels):
            line = {"color": label_colour(label, options), "marker": "o", "ms": 3.5}
            left.plot(ratios, before[:, label], ls=DASHES, lw=1, mfc="white", **line)
            left.plot(ratios, after[:, label], **line)
        left.set_ylim(0, 1)
        left.set_ylabel("share of frames, soft alignment")
        steps = [[r.steps_below(NEAR_ZERO) for r in results[name]] for name in setups]
        limit = max(len(result.loss) for runs in results.values() for result in runs)
        missed = {"ls": "", "marker": "^", "ms": 5, "color": COLOURS[3], "clip_on": False}
        for ratio, runs in zip(ratios, steps, strict=True):
            reached = [step for step in runs if step < np.inf]
            right.plot([ratio] * len(reached), reached, "o", color=INK, ms=4, alpha=0.4, mew=0)
            if len(reached) < len(runs):
                right.plot(ratio, limit, **missed)
                right.annotate(
                    str(len(runs) - len(reached)), (ratio, limit), (0, -6),
                    textcoords="offset points", ha="center", va="top", fontsize=8, color=COLOURS[3],
                )  # fmt: skip
        missed_handle = Line2D([], [], label="runs that did not get there, number", **missed)
        medians = [np.median(runs) for runs in steps]
        right.plot(ratios, [m if m < np.inf else np.nan for m in medians], color=INK)
        right.set_ylim(0, 1.02 * limit)
        right.set_ylabel(f"steps until the loss is below {NEAR_ZERO:g} nat")
        for axis in (left, right):
            axis.set_xlabel("T / N (frames per label)")
            axis.set_xlim(left=0)
        line = {"color": INK, "marker": "o", "ms": 3.5}
        first = Line2D([], [], ls=DASHES, lw=1, mfc="white", label="first step", **line)
        last = Line2D([], [], label="last step", **line)
        legend(figure, [*label_handles(options), first, last, missed_handle])
    figure.set_label(
        "What the number of frames per label does. Left: the share of each label in the soft "
        "alignment, means over frames and seeds, at the first and at the last step. Right: how "
        "many steps training takes, a dot per seed, and the median."
    )
    return figure


def label_shares_of_counts(outcome: Outcome) -> Figure:
    """C(s, t, T) / C(T) of the standard topologies: no training, only counting."""
    with matplotlib.rc_context(STYLE):
        titles = [f"{name}\n{expression(name)}" for name in STANDARD]
        figure, axes = titled_panels(titles, 3, 1.4, top=0.3)
        for axis, name in zip(axes, STANDARD, strict=True):
            segments = standard_segments(name)
            options = Options(topology=name)
            paths = chain_count_paths(segments, COUNTED_FRAMES)
            for label in range(options.num_labels):
                counts = [
                    chain_count_label(segments, label, t, COUNTED_FRAMES)
                    for t in range(COUNTED_FRAMES)
                ]
                shares = [count / paths for count in counts]
                axis.plot(shares, color=label_colour(label, options))
            axis.set(xlim=(0, COUNTED_FRAMES - 1), ylim=(0, 1), xlabel="frame")
            axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes[0].set_ylabel("share of paths")
        legend(figure, label_handles(*(Options(topology=name) for name in STANDARD)))
    figure.set_label(
        f"Of all alignments of {COUNTED_FRAMES} frames, the share that has a label at a frame: "
        "C(s, t, T) / C(T), counted exactly. This is the soft alignment of a model that knows "
        "nothing yet."
    )
    return figure


def _line_handles() -> list[Line2D]:
    """Legend entries for what `_draw_frames` draws."""
    return [
        Line2D([], [], color=INK, label="posterior"),
        Line2D([], [], color=INK, ls=DASHES, lw=1, label="soft alignment"),
    ]


def _spread(steps: Sequence[int], number: int) -> list[int]:
    """At most ``number`` of these steps, the first and the last among them."""
    if len(steps) <= number:
        return list(steps)
    return [steps[i] for i in np.linspace(0, len(steps) - 1, number).round().astype(int)]


def _mean_alignment(results: Sequence[Result], first: bool) -> np.ndarray:
    """The soft alignment of step 0 or of the last step: (V,), mean over frames and seeds."""
    snapshots = [result.snapshots[0] if first else result.last for result in results]
    return np.mean([s.soft_alignment.mean(0).numpy() for s in snapshots], axis=0)


def _draw_frames(axis: Axes, snapshot: Snapshot, options: Options) -> None:
    """Posteriors and soft alignment of each label over frames."""
    frames = np.arange(len(snapshot.posteriors))
    for label in range(options.num_labels - 1, -1, -1):  # blank first: the others lie on it
        posterior, share = snapshot.posteriors[:, label], snapshot.soft_alignment[:, label]
        colour = label_colour(label, options)
        axis.fill_between(frames, posterior, step="mid", color=colour, alpha=0.15, lw=0)
        axis.plot(frames, posterior, drawstyle="steps-mid", color=colour)
        axis.plot(frames, share, drawstyle="steps-mid", color=colour, ls=DASHES, lw=1)
    axis.set(xlim=(-0.5, len(frames) - 0.5), ylim=(-0.03, 1.05))
    axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def _strips(axis: Axes, options: Options, result: Result | None) -> None:
    """Below the curves, a strip with the ground truth, and one with a result's best alignment."""
    strips = {"truth": options.input_labels} if options.input else {}
    strips["Viterbi"] = result.viterbi if result else None
    for number, (name, labels) in enumerate(strips.items()):
        if labels is None:
            continue
        top = -0.08 - 0.2 * number
        colours = np.array(
            [[to_rgb(label_colour(label, options)) for label in labels]]
        )  # (1, T, 3)
        extent = (-0.5, len(labels) - 0.5, top - 0.14, top)
        axis.imshow(colours, aspect="auto", extent=extent, interpolation="nearest")
        if result:
            axis.text(
                1.02,
                top - 0.07,
                name,
                transform=axis.get_yaxis_transform(),
                va="center",
                fontsize=8,
            )
    axis.set(xlim=(-0.5, options.num_frames - 0.5), ylim=(-0.08 - 0.2 * len(strips), 1.05))
