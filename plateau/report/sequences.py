"""Sequences on a page: drawings as lines, images as pixels, waveforms with a player."""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from plateau.data.sequences import About
from plateau.report.drawings import sound, strokes_svg, waveform_svg
from plateau.report.page import data_uri

STYLE = """
.beside { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.beside h3 { font-size: .9rem; color: var(--soft); font-weight: normal; }
.sequences { display: grid; gap: .8rem 1.5rem; }
.sequences.strokes, .sequences.frames {
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
.sequences.images { grid-template-columns: repeat(auto-fill, minmax(4.5rem, 1fr)); }
.sequences.row { grid-template-columns: repeat(var(--columns), minmax(0, 4.5rem));
  gap: .3rem; margin-bottom: .6rem; }
.sequences figure { margin: 0; min-width: 0; }
.sequences figcaption { overflow-wrap: anywhere; line-height: 1.3; }
.sequences svg { display: block; width: 100%; height: 5rem; color: var(--ink);
  fill: none; }
.sequences path { vector-effect: non-scaling-stroke; stroke-width: 1.5px; }
.sequences .given { color: var(--c1); }
.sequences + .sequences { margin-top: 1.5rem; }
.sequences.row + .row { margin-top: 0; }
.sequences img { display: block; width: 100%; image-rendering: pixelated; }
.sequences audio { height: 2rem; margin: .2rem 0; }
@media (max-width: 40rem) { .row figcaption { display: none; } }
@media (prefers-color-scheme: dark) { .sequences img { filter: invert(1); } }
"""


@dataclass(frozen=True)
class Shown:
    """A sequence of the page.

    Args:
        caption: what it is; "" where that is clear.
        values: (T, D), in the units of the data.
        given: so many steps were given to the model, and are drawn in another colour.
    """

    caption: str
    values: Tensor
    given: int = 0


def grid(shown: Iterable[Shown], about: About, columns: int = 0) -> Iterator[str]:
    """Sequences side by side, as many as have room.

    Args:
        shown: what to show.
        about: what they are.
        columns: of images: so many, which get smaller where there is no room; 0: as fits
    """
    row = f' row" style="--columns:{columns}' if columns else ""
    yield f'<div class="sequences {about.kind}{row}">'
    for each in shown:
        caption = f"<figcaption>{escape(each.caption)}</figcaption>" if each.caption else ""
        yield f"<figure>{_picture(each, about)}{caption}</figure>"
    yield "</div>"


def beside(grids: Mapping[str, Iterable[Shown]], about: About) -> Iterator[str]:
    """Grids beside each other, where there is room, with their names above."""
    yield '<div class="beside">'
    for name, shown in grids.items():
        yield f"<div><h3>{escape(name)}</h3>"
        yield from grid(shown, about)
        yield "</div>"
    yield "</div>"


def _picture(shown: Shown, about: About) -> str:
    name = escape(shown.caption or about.kind)
    if about.kind == "strokes":
        return strokes_svg(shown.values, shown.given)
    if about.kind == "images":
        png = data_uri(image_png(shown.values[0].reshape(about.shape)), "image/png")
        return f'<img alt="{name}" src="{png}">'
    wav = data_uri(sound(shown.values, about.sampling_rate), "audio/wav")
    player = f'<audio controls preload="metadata" aria-label="sound of {name}" src="{wav}"></audio>'
    return waveform_svg(shown.values, shown.given) + player


def image_png(values: Tensor) -> bytes:
    """A PNG with a pixel for each value (rows, columns); 0 and below is white, from 1 on black."""
    grey = np.round(255 * (1 - values.detach().cpu().double().clamp(0, 1).numpy()))
    file = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(file, "png", optimize=True)
    return file.getvalue()
