import io
from itertools import combinations
from math import exp, log

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.text import Text
from PIL import Image

pytest.importorskip("k2")

from plateau.graphs.counts import paths
from plateau.graphs.graph import arcs_of
from plateau.graphs.topology import STANDARD, chain, standard_segments
from toy_peaky import graph_pictures, layout, pictures
from toy_peaky.experiment import Experiment, Outcome, run
from toy_peaky.options import Options
from toy_peaky.training import train

TRUTH = "3x3 0x3 1x2 3x4 2x4 3x2"


def outcome_of(setups: dict[str, Options], snapshots: tuple[int, ...] = ()) -> Outcome:
    return run(
        Experiment("name", "notes", "", lambda results: ("", True), setups, False, snapshots)
    )


@pytest.fixture(scope="module")
def reference_outcome():
    """Two networks that learn a ground truth, with many snapshots."""
    linear = Options(model="linear", bias=False, target="0 1 2", input=TRUTH, steps=41)
    setups = {"sum": linear, "prior": Options(**{**vars_of(linear), "loss": "sum_with_prior"})}
    return outcome_of(setups, tuple(range(0, 40, 4)))


@pytest.fixture(scope="module")
def random_outcome():
    """Many random starts; the last setup has fewer, and silence."""
    mem = Options(init="normal", frames=12, seeds="0:30", steps=30, target="0 1")
    return outcome_of(
        {
            "mem": mem,
            "a Viterbi loss, and a name that is too long for a single line above a panel": Options(
                **{**vars_of(mem), "loss": "max"}
            ),
            "bias": Options(**{**vars_of(mem), "model": "bias", "lr": 1.0}),
            "one run": Options(frames=12, steps=20, topology="3label_sil"),
        }
    )


@pytest.fixture(scope="module")
def length_outcome():
    """Longer and longer input; the longest do not get there."""
    return outcome_of(
        {
            f"T = {2 * n}": Options(
                frames=2 * n,
                target="0 1",
                steps=60,
                lr=0.3,
                seeds="0:2",
                init="normal",
                rnd_scale=0.01,
            )
            for n in (1, 2, 3, 5, 20)
        },
        snapshots=(0,),
    )


@pytest.fixture(scope="module")
def map_outcome():
    label = {"classes": 1, "steps": 12, "seeds": "0:3", "init": "normal"}
    free = {**label, "input": "1x2 0x2 1x2", "lr": 0.05}
    return outcome_of(
        {
            "bias": Options(model="bias", frames=6, **label),
            "generative": Options(model="gen_model_free", loss="gen_sum", **free),
            "prior": Options(model="model_free", loss="sum_with_prior", **free),
        }
    )


@pytest.fixture
def counts_outcome():
    return outcome_of({})


def vars_of(options: Options) -> dict:
    return {name: getattr(options, name) for name in Options.__dataclass_fields__}


def texts(figure) -> list[Text]:
    """What is written: everything but the ticks that lie outside of the view."""
    found = [*figure.texts]
    for legend in figure.legends + [a.get_legend() for a in figure.axes if a.get_legend()]:
        found += legend.get_texts()
    for axes in figure.axes:
        found += [axes.title, axes._left_title, axes._right_title, *axes.texts]
        if not axes.axison:
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            found += [axis.label, *(text for at, text in ticks if low <= at <= high)]
    return [text for text in found if text.get_visible() and text.get_text()]


def assert_readable(figure) -> None:
    """No text lies on another, or is cut off."""
    FigureCanvasAgg(figure).draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert boxes
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0
        assert inside and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in combinations(boxes, 2):
        # 1 pixel: boxes are larger than ink.
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"'{one}' and '{other}' overlap"


@pytest.mark.parametrize(
    ("picture", "fixture"),
    [
        (pictures.posteriors_over_time, "reference_outcome"),
        (pictures.posteriors_over_time, "random_outcome"),
        (pictures.blank_histogram, "random_outcome"),
        (pictures.loss_curves, "random_outcome"),
        (pictures.loss_curves, "reference_outcome"),
        (pictures.loss_map, "map_outcome"),
        (pictures.ratio_over_length, "length_outcome"),
        (pictures.label_shares_of_counts, "counts_outcome"),
        (graph_pictures.graphs, "counts_outcome"),
        (graph_pictures.graphs, "random_outcome"),
    ],
)
def test_pictures_are_readable(picture, fixture, request):
    figure = picture(request.getfixturevalue(fixture))
    assert figure.get_figwidth() == layout.WIDTH
    assert ". " in figure.get_label()
    assert_readable(figure)


def test_overlaps_are_found(random_outcome):
    figure = pictures.blank_histogram(random_outcome)
    FigureCanvasAgg(figure).draw()
    at = figure.axes[0]._left_title.get_window_extent().transformed(figure.transFigure.inverted())
    figure.text(at.x0 + 0.005, at.y0, "another")
    with pytest.raises(AssertionError, match="overlap"):
        assert_readable(figure)


def test_posteriors_over_time_shows_the_snapshots(reference_outcome):
    figure = pictures.posteriors_over_time(reference_outcome)
    panels = iter(figure.axes)
    for results in reference_outcome.results.values():
        steps = [0, 8, 20, 32, 40]  # five of 0, 4 … 36 and 40
        for step, axes in zip(steps, panels, strict=False):
            assert axes.get_title(loc="left") == f"step {step}, loss {results[0].loss[step]:.3g}"
            snapshot = results[0].snapshots[step]
            lines = {(line.get_color(), line.get_linestyle()): line for line in axes.lines}
            for label in range(4):
                colour = layout.BLANK if label == 3 else layout.COLOURS[label]
                posterior, share = lines[colour, "-"], lines[colour, "--"]
                np.testing.assert_array_equal(posterior.get_ydata(), snapshot.posteriors[:, label])
                np.testing.assert_array_equal(share.get_ydata(), snapshot.soft_alignment[:, label])
            strips = [image.get_array()[0] for image in axes.images]
            assert strip_labels(strips[0]) == [3, 3, 3, 0, 0, 0, 1, 1, 3, 3, 3, 3, 2, 2, 2, 2, 3, 3]
            assert len(strips) == 1 + (step == 40)
        assert strip_labels(strips[1]) == results[0].viterbi
    assert next(panels, None) is None


def strip_labels(strip: np.ndarray) -> list[int]:
    colours = [*layout.COLOURS[:3], layout.BLANK]
    return [colours.index(to_hex(colour)) for colour in strip]


def test_animation(reference_outcome):
    image = pictures.animation(reference_outcome)
    assert len(image) <= 500_000
    with Image.open(io.BytesIO(image)) as gif:
        assert gif.format == "GIF"
        frames = []
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(gif.convert("RGB").tobytes())
    assert len(frames) == len(set(frames)) == 11


def test_blank_histogram_counts_runs(random_outcome):
    figure = pictures.blank_histogram(random_outcome)
    for axes, (name, results) in zip(figure.axes, random_outcome.results.items(), strict=True):
        blank = random_outcome.experiment.setups[name].blank
        expected, _ = np.histogram([r.avg_softmax[blank] for r in results], 20, (0, 1))
        assert [bar.get_height() for bar in axes.patches] == expected.tolist()
        assert sum(expected) == len(results)
        np.testing.assert_allclose([bar.get_x() for bar in axes.patches], np.arange(20) / 20)
        assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {layout.BLANK}
        plural = "30 runs" if len(results) == 30 else "1 run"
        what = "silence" if name == "one run" else "blank"
        assert axes.get_xlabel() == f"average posterior of {what}, {plural}"
    tops = [axes.get_ylim()[1] for axes in figure.axes]
    assert tops[0] == tops[1] == tops[2] > 2 > tops[3] > 1


def test_loss_curves_are_median_and_range(random_outcome):
    (axes,) = pictures.loss_curves(random_outcome).axes
    shades = iter(axes.collections)
    for line, results in zip(axes.lines, random_outcome.results.values(), strict=True):
        losses = np.array([result.loss for result in results])
        np.testing.assert_array_equal(line.get_ydata(), np.median(losses, axis=0))
        if len(losses) > 1:
            (outline,) = next(shades).get_paths()
            highest, lowest = outline.vertices[:, 1].max(), outline.vertices[:, 1].min()
            assert (lowest, highest) == (losses.min(), losses.max())
    assert next(shades, None) is None
    assert axes.get_yscale() == "linear"
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 4


def test_loss_curves_over_decades():
    outcome = outcome_of({"mem": Options(frames=100, target="0")})
    (axes,) = pictures.loss_curves(outcome).axes
    assert axes.get_yscale() == "symlog"
    assert axes.get_ylim()[0] < 0


def test_curves_differ():
    assert len({layout.line_style(number) for number in range(28)}) == 28


def enumerated_loss(options: Options, first: float, second: float) -> float:
    """Loss of a model with two parameters by its definition, from every path."""
    frames = options.input_labels or [0] * options.num_frames
    theta = (first, second)
    if options.model == "bias":
        scores = [theta] * len(frames)
    elif options.model == "model_free":
        scores = [(theta[x], -theta[x]) for x in frames]
    else:  # log p(x | label)
        scores = [tuple((-t if x else t) - log(exp(t) + exp(-t)) for t in theta) for x in frames]
    if options.loss != "gen_sum":
        scores = [tuple(s - log(sum(map(exp, row))) for s in row) for row in scores]
    if options.loss == "sum_with_prior":
        prior = [log(sum(exp(row[label]) for row in scores) / len(scores)) for label in (0, 1)]
        scores = [tuple(s - p for s, p in zip(row, prior, strict=True)) for row in scores]
    alignments = [labels for labels, _ in paths(options.graph, len(frames))]
    return -log(
        sum(
            exp(sum(row[label] for row, label in zip(scores, labels, strict=True)))
            for labels in alignments
        )
    )


def test_loss_grid_agrees_with_enumeration(map_outcome):
    for options in map_outcome.experiment.setups.values():
        side, losses, gradients = pictures.loss_grid(options)
        assert side[0] == -5 and side[-1] == 5
        for row, column in ((0, 0), (3, 20), (18, 9), (30, 12)):
            x, y = side[column], side[row]
            assert losses[row, column] == pytest.approx(enumerated_loss(options, x, y), abs=1e-4)
            step = 1e-5
            slope = [
                enumerated_loss(options, x + step, y) - enumerated_loss(options, x - step, y),
                enumerated_loss(options, x, y + step) - enumerated_loss(options, x, y - step),
            ]
            expected = np.array(slope) / (2 * step)
            np.testing.assert_allclose(gradients[row, column], expected, atol=1e-4)


def test_descent_is_what_training_does(map_outcome):
    for name, options in map_outcome.experiment.setups.items():
        losses, points = pictures.descent(options)
        expected = np.array([result.loss for result in map_outcome.results[name]]).T
        np.testing.assert_allclose(losses, expected, rtol=1e-6)
        assert points.shape == (12, 3, 2)
        for loss, (x, y) in zip(losses[-1], points[-1], strict=True):
            assert loss == pytest.approx(enumerated_loss(options, x, y), abs=1e-4)
    adam = Options(**{**vars_of(options), "optimizer": "adam"})
    assert pictures.descent(adam)[1].shape[1] == 0


def test_loss_map_shows_grid_and_paths(map_outcome):
    figure = pictures.loss_map(map_outcome)
    maps = [axes for axes in figure.axes if axes.get_label() != "colours"]
    assert [(m.get_xlabel(), m.get_ylabel()) for m in maps] == [
        ("bias of 0", "bias of blank"),
        (r"$\theta$ of 0", r"$\theta$ of blank"),
        (r"$\theta$ of 0", r"$\theta$ of blank"),
    ]
    for axes, options in zip(maps, map_outcome.experiment.setups.values(), strict=True):
        box = axes.get_position()
        assert box.width * figure.get_figwidth() == pytest.approx(
            box.height * figure.get_figheight(), rel=0.05
        )  # as wide as high
        _, points = pictures.descent(options)
        for run_number, path in enumerate(axes.lines[::3]):
            np.testing.assert_allclose(path.get_xydata(), points[:, run_number])
        assert len(axes.lines) == 9
        # Arrows on the stream lines point downhill.
        arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
        downhill = 0
        for arrow in arrows:
            (x, y), (new_x, new_y) = arrow._posA_posB
            before, after = (enumerated_loss(options, *at) for at in ((x, y), (new_x, new_y)))
            downhill += after < before + 1e-6
        assert len(arrows) > 20
        assert downhill > 0.97 * len(arrows)  # at a ridge, an arrow may reach over it


def test_loss_map_needs_two_parameters():
    with pytest.raises(ValueError, match="mem with 2 labels: not two parameters"):
        pictures.loss_grid(Options(classes=1, frames=3))
    with pytest.raises(ValueError, match="bias with 3 labels"):
        pictures.loss_grid(Options(model="bias", classes=2, frames=3))


def test_ratio_over_length(length_outcome):
    left, right = pictures.ratio_over_length(length_outcome).axes
    ratios = [1, 2, 3, 5, 20]
    lines = {(line.get_color(), line.get_linestyle()): line for line in left.lines}
    for label, colour in enumerate([*layout.COLOURS[:2], layout.BLANK]):
        for style, step in (("--", 0), ("-", 59)):
            expected = [
                np.mean([r.snapshots[step].soft_alignment[:, label].numpy() for r in results])
                for results in length_outcome.results.values()
            ]
            np.testing.assert_allclose(lines[colour, style].get_xdata(), ratios)
            np.testing.assert_allclose(lines[colour, style].get_ydata(), expected, rtol=1e-6)
    # With one frame for each label there is nothing to choose, with T = 40 it is not done in time.
    assert lines[layout.BLANK, "-"].get_ydata()[0] == pytest.approx(0)
    dots = {
        x: list(line.get_ydata())
        for line in right.lines
        if line.get_alpha()
        for x in line.get_xdata()
    }
    for ratio, results in zip(ratios[:-1], length_outcome.results.values(), strict=False):
        for steps, result in zip(dots[ratio], results, strict=True):
            assert result.loss[int(steps)] < 1 <= result.loss[int(steps) - 1]
    assert 20 not in dots
    (missed,) = (line for line in right.lines if line.get_marker() == "^")
    assert (missed.get_xdata()[0], [text.get_text() for text in right.texts]) == (20, ["2"])


def test_label_shares_of_counts_agree_with_enumeration(counts_outcome, monkeypatch):
    monkeypatch.setattr(pictures, "COUNTED_FRAMES", 7)
    figure = pictures.label_shares_of_counts(counts_outcome)
    for axes, name in zip(figure.axes, STANDARD, strict=True):
        assert axes.get_title(loc="left").startswith(name + "\n")
        alignments = np.array([p for p, _ in paths(chain(standard_segments(name)), 7)])
        assert len(axes.lines) == alignments.max() + 1
        for label, line in enumerate(axes.lines):
            np.testing.assert_allclose(line.get_ydata(), (alignments == label).mean(axis=0))


def test_graphs_draw_every_arc(counts_outcome):
    (axes,) = graph_pictures.graphs(counts_outcome).axes
    fsas = [chain(standard_segments(name)) for name in STANDARD]
    arcs = [arc for fsa in fsas for arc in arcs_of(fsa)]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == sum(arc.label != -1 for arc in arcs) + len(fsas)  # and one to each start
    circles = [patch for patch in axes.patches if isinstance(patch, Circle)]
    states = sum(int(fsa.num_states) - 1 for fsa in fsas)
    assert len(circles) == states + sum(arc.label == -1 for arc in arcs)  # double where it may end
    written = [text.get_text() for text in axes.texts]
    assert written.count("silence") == sum(
        arc.label == fsa.labels.max() for fsa in (fsas[4], fsas[6]) for arc in arcs_of(fsa)
    )
    assert "3label_sil: S* 0+ 1+ 2+ S*" in written


def test_graphs_draws_equal_targets_once_and_any_fsa(tmp_path):
    path = tmp_path / "back.txt"
    path.write_text("0 1 0\n1 2 1 -0.7\n2 0 2\n2 1 0\n0 3 1\n3 3 0\n3 3 1\n1\n3\n")
    setups = {
        "one": Options(target="0"),
        "two": Options(target="0", lr=1.0),
        "text": Options(fsa=path, frames=9),
        "long": Options(target="0 1 2 3 4 5 6", frames=40),
    }
    figure = graph_pictures.graphs(outcome_of(setups))
    written = [text.get_text() for text in figure.axes[0].texts]
    assert "one, two" in written
    assert "text" in written
    assert "1 / -0.7" in written
    assert "0, 1" in written  # two arcs between the same states
    assert_readable(figure)


def test_png(random_outcome):
    content = layout.png(pictures.blank_histogram(random_outcome))
    with Image.open(io.BytesIO(content)) as image:
        assert image.width == round(layout.WIDTH * layout.DPI)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert min(abs(np.array(c) - (0x76, 0x76, 0x76)).max() for c in colours) < 4  # the bars' grey


def test_drawing_leaves_settings_alone(random_outcome):
    import matplotlib

    before = dict(matplotlib.rcParams)
    layout.png(pictures.loss_curves(random_outcome))
    assert dict(matplotlib.rcParams) == before


def test_snapshots_of_several_lengths():
    """Rows may have different numbers of frames and of steps."""
    short, long = Options(frames=5, target="0", steps=3), Options(frames=50, target="0", steps=30)
    figure = pictures.posteriors_over_time(outcome_of({"a": short, "b": long}, (0, 10)))
    titles = [axes.get_title(loc="left").split(",")[0] for axes in figure.axes]
    assert titles == ["step 0", "step 2", "step 0", "step 10", "step 29"]
    assert_readable(figure)
    assert train(short)[0].loss[2] == pytest.approx(
        float(figure.axes[1].get_title(loc="left").split()[-1]), rel=1e-2
    )
