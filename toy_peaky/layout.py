"""How pictures look: sizes, colours, panels, legends. All lengths are in inches."""

import io
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from toy_peaky.options import Options

WIDTH = 9.0  # inches; shown 900 px wide
DPI = 150  # of PNG files
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}
# Okabe and Ito's colours, which people with colour blindness can tell apart; paper is white.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#c9b900")
BLANK = "#767676"
INK = "#222222"
PALE_INK = "#666666"
DASHES = (0, (2.5, 1.5))
CHARACTER = 0.075  # inches, a letter's mean width


def label_name(label: int, options: Options) -> str:
    """What a label is called."""
    if label != options.blank:
        return str(label)
    return "silence" if options.kind in ("silence", "forced_silence") else "blank"


def label_colour(label: int, options: Options) -> str:
    """Blank is grey; with more labels than colours they start again."""
    return BLANK if label == options.blank else COLOURS[label % len(COLOURS)]


def label_handles(*setups: Options) -> list[Patch]:
    """Legend entries for the labels of all setups, blank (or silence) last."""
    number = max(options.blank for options in setups)
    handles = [Patch(color=COLOURS[i % len(COLOURS)], label=str(i)) for i in range(number)]
    names = sorted({label_name(options.blank, options) for options in setups})
    return [*handles, Patch(color=BLANK, label=" or ".join(names))]


def line_style(number: int) -> tuple[str, str]:
    """Colour and style of the curve with that number; 28 are different."""
    styles = ("-", "--", ":", "-.")
    return COLOURS[number % len(COLOURS)], styles[number // len(COLOURS) % len(styles)]


def panels(
    rows: int,
    columns: int,
    height: float,
    *,
    left: float = 0.65,
    right: float = 0.6,
    top: float = 0.0,
    above: float = 0.3,
    below: float = 0.45,
    gap: float = 0.35,
) -> tuple[Figure, np.ndarray]:
    """A figure of axes (rows, columns); all lengths are in inches.

    Args:
        height: of each of the axes.
        top: room for a legend above all.
        above: room above each row, and ``below`` it.
        gap: room between columns.
    """
    width = (WIDTH - left - right - gap * (columns - 1)) / columns
    total = top + rows * (above + height + below)
    figure = Figure((WIDTH, total))
    axes = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        y = total - top - row * (above + height + below) - above - height
        for column in range(columns):
            x = left + column * (width + gap)
            axes[row, column] = figure.add_axes(
                [x / WIDTH, y / total, width / WIDTH, height / total]
            )
    return figure, axes


def titled_panels(
    titles: Sequence[str],
    columns: int,
    height: float,
    *,
    top: float = 0.0,
    right: float = 0.2,
    gap: float = 0.35,
) -> tuple[Figure, list[Axes]]:
    """Panels with titles, some in a row, all of the same width; with the lengths of `panels`."""
    width = (WIDTH - 0.65 - right - gap * (columns - 1)) / columns
    wrapped = [
        "\n".join(textwrap.fill(line, int(width / CHARACTER)) for line in title.splitlines())
        for title in titles
    ]
    above = 0.2 + 0.16 * max(1 + title.count("\n") for title in wrapped)
    rows = -(-len(titles) // columns)
    figure, axes = panels(rows, columns, height, right=right, top=top, above=above, gap=gap)
    for axis, title in zip(axes.flat, wrapped, strict=False):
        axis.set_title(title)
    for axis in axes.flat[len(titles) :]:
        axis.remove()
    return figure, list(axes.flat[: len(titles)])


def heading(figure: Figure, axis: Axes, text: str) -> None:
    """Bold text above the title of a row's first axes."""
    box = axis.get_position()
    y = box.y1 + 0.27 / figure.get_figheight()
    text = textwrap.shorten(text, int((WIDTH - 1.2) / CHARACTER))
    figure.text(box.x0, y, text, fontweight="bold", color=INK)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """In one line at the top."""
    figure.legend(
        handles=list(handles), loc="upper left", bbox_to_anchor=(0.01, 1.0), ncols=len(handles),
        handlelength=1.6, columnspacing=1.4, borderaxespad=0.3,
    )  # fmt: skip


def png(figure: Figure) -> bytes:
    """A figure as a PNG file, in 256 colours: a third of the size, and no different to look at."""
    with matplotlib.rc_context(STYLE):
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, "png", dpi=(DPI, DPI))
    return file.getvalue()
