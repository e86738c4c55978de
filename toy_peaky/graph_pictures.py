"""Drawings of FSAs whose states are a row: no Graphviz needed."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path

from plateau.graphs.graph import Arc, arcs_of
from plateau.graphs.topology import STANDARD, standard_segments
from toy_peaky.experiment import Outcome
from toy_peaky.layout import CHARACTER, INK, STYLE, WIDTH, label_colour, label_name
from toy_peaky.options import Options

RADIUS = 0.17  # inches, of a state
BEND = 0.25  # how far arcs bend, per length


def expression(name: str) -> str:
    """A standard topology as a regular expression: ``B* 0+ B*``."""
    options = Options(topology=name)
    initial = label_name(options.blank, options)[0].upper()
    parts = [
        (initial if segment.label == options.blank else str(segment.label))
        + ("*" if segment.optional else "+")
        for segment in standard_segments(name)
    ]
    return " ".join(parts)


def graphs(outcome: Outcome) -> Figure:
    """The targets of the setups as FSAs, or the standard topologies if there are no setups."""
    setups = dict(outcome.experiment.setups)
    if not setups:
        setups = {f"{name}: {expression(name)}": Options(topology=name) for name in STANDARD}
    targets: dict[tuple[Arc, ...], list[str]] = {}  # equal ones are drawn once
    for name, options in setups.items():
        targets.setdefault(tuple(arcs_of(options.graph)), []).append(name)
    rooms = [_room(arcs) for arcs in targets]  # above and below a graph's states
    y = sum(map(sum, rooms))
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, y))
        axis = figure.add_axes([0, 0, 1, 1])  # 1 unit is 1 inch
        axis.set(xlim=(0, WIDTH), ylim=(0, y))
        axis.set_axis_off()
        for (arcs, names), (above, below) in zip(targets.items(), rooms, strict=True):
            title = textwrap.shorten(", ".join(names), int((WIDTH - 0.3) / CHARACTER))
            axis.text(0.1, y - 0.06, title, va="top", fontweight="bold", color=INK)
            _draw_graph(axis, arcs, y - above, setups[names[0]])
            y -= above + below
    figure.set_label(
        "The targets as finite-state acceptors. A path from the arrow on the left to a double "
        "circle reads a label per arc and frame; it is an alignment. B and S are blank and silence."
    )
    return figure


def _spacing(arcs: Sequence[Arc]) -> float:
    """Inches between states; all fit into the width."""
    return min(1.1, (WIDTH - 1.1) / max(arc.target for arc in arcs))


def _room(arcs: Sequence[Arc]) -> tuple[float, float]:
    """Inches that a graph needs above the row of its states, title included, and below it."""
    distances = [arc.target - arc.source for arc in arcs if arc.label != -1]
    back, past = max(0, -min(distances)), max(distances)
    above = 0.9 if back == 0 else 1.15 + BEND * back * _spacing(arcs)
    return above, 0.3 if past < 2 else 0.5 + 0.75 * BEND * past * _spacing(arcs)


def _draw_graph(axis: Axes, arcs: Sequence[Arc], y: float, options: Options) -> None:
    """States in a row at height ``y``; loops and ways back above it, ways past a state below."""
    final = max(arc.target for arc in arcs)  # is entered by -1 alone: not drawn
    x = 0.6 + _spacing(arcs) * np.arange(final)
    ends = {arc.source for arc in arcs if arc.label == -1}
    _arrow(axis, [(x[0] - 0.45, y), (x[0] - RADIUS, y)], INK)
    for state in range(final):
        for radius in (RADIUS, RADIUS - 0.035) if state in ends else (RADIUS,):
            axis.add_patch(Circle((x[state], y), radius, fc="white", ec=INK, lw=1))
        axis.text(x[state], y - 0.01, str(state), ha="center", va="center", fontsize=8, color=INK)
    between: dict[tuple[int, int], list[Arc]] = {}
    for arc in arcs:
        if arc.label != -1:
            between.setdefault((arc.source, arc.target), []).append(arc)
    for (source, target), parallel in between.items():
        start, end, colour = x[source], x[target], label_colour(parallel[0].label, options)
        if source == target:
            dx, dy = 0.45 * RADIUS, 0.89 * RADIUS
            controls = [(start - 0.22, y + 0.5), (start + 0.22, y + 0.5)]
            _arrow(axis, [(start - dx, y + dy), *controls, (start + dx, y + dy)], colour)
            height = 0.49
        elif target == source + 1:
            _arrow(axis, [(start + RADIUS, y), (end - RADIUS, y)], colour)
            height = 0.09
        else:
            back = end < start
            side, way = (1, -1) if back else (-1, 1)
            bend = BEND * abs(end - start) + 0.5 * back  # ways back go above the loops
            dx, dy = 0.7 * RADIUS * way, 0.7 * RADIUS * side
            quarter, level = (end - start) / 4, y + side * bend
            controls = [(start + quarter, level), (end - quarter, level)]
            _arrow(axis, [(start + dx, y + dy), *controls, (end - dx, y + dy)], colour)
            height = side * (0.75 * bend + 0.25 * 0.7 * RADIUS + 0.09)
        text = ", ".join(_arc_name(arc, options) for arc in parallel)
        if _spacing(arcs) < 0.75:  # no room for words
            text = text.replace("blank", "B").replace("silence", "S")
        axis.text(
            (start + end) / 2,
            y + height,
            text,
            ha="center",
            va="center",
            fontsize=8.5,
            color=INK,
        )


def _arrow(axis: Axes, points: Sequence[tuple[float, float]], colour: str) -> None:
    """An arrow along a line (2 points) or a cubic Bézier curve (4)."""
    codes = [Path.MOVETO] + [Path.LINETO if len(points) == 2 else Path.CURVE4] * (len(points) - 1)
    axis.add_patch(
        FancyArrowPatch(
            path=Path(points, codes), arrowstyle="-|>", mutation_scale=9, color=colour, lw=1.1
        )
    )


def _arc_name(arc: Arc, options: Options) -> str:
    name = label_name(arc.label, options)
    return f"{name} / {arc.score:.2g}" if arc.score else name
