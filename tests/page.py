"""A page as tests see it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}


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
