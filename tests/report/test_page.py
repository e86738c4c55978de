"""Colours of the pages' style, by WCAG's formula of contrast."""

import re

import pytest

from plateau.report.page import NUM_COLOURS, STYLE


def contrast(one: str, other: str) -> float:
    """Of two colours #rrggbb, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_curves_can_be_seen(dark):
    light, darker = STYLE.split("@media (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"--(\w+): (#\w{6});", darker.split("} }")[0] if dark else light))
    for paper in ("paper", "box"):
        for name in ("ink", "soft", "link", "yes", "no"):
            assert contrast(colours[name], colours[paper]) >= 4.5, name
        for name in ("blank", *(f"c{n}" for n in range(NUM_COLOURS))):
            assert contrast(colours[name], colours[paper]) >= 3, name
    assert contrast(colours["paper"], colours["link"]) >= 4.5  # a word that is playing
    assert f"c{NUM_COLOURS}" not in colours
