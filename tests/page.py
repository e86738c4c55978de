"""A page as tests see it."""

import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """A page's tags, which must be balanced, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open}"
        self.open.pop()
        if tag in ("dt", "dd", "th", "td"):
            self.texts.append(" ")

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    def attributes(self, name: str, tag: str | None = None) -> list[str]:
        return [a[name] for t, a in self.tags if name in a and tag in (None, t)]

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def buttons(page: Page) -> list[dict[str, str]]:
    """The attributes of the buttons."""
    return [attributes for tag, attributes in page.tags if tag == "button"]


def style(attributes: dict[str, str]) -> dict[str, float]:
    """Pixels of the properties in an attribute style."""
    return {k: float(v) for k, v in re.findall(r"([\w-]+):([-\d.]+)px", attributes["style"])}


def bars_of(page: Page) -> list[tuple[float, float]]:
    """Left edge and width of the bar of each button, in its track."""
    lefts = [style(button)["left"] for button in buttons(page)]
    bars = [style(a) for tag, a in page.tags if tag == "span" and a["class"] == "extent"]
    return [(x + bar["left"], bar["width"]) for x, bar in zip(lefts, bars, strict=True)]


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share more than a hair."""
    sizes = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return all(size > 0.5 for size in sizes)
