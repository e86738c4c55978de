"""What every page shares: head, style, colours. A page is one file and asks for nothing else."""

import subprocess
from base64 import b64encode
from html import escape
from pathlib import Path

NUM_COLOURS = 7  # --c0 … of the style

# Colours of text have a contrast of at least 4.5 to paper and box, those of curves at least 3. The
# latter are Okabe and Ito's, which people with colour blindness can tell apart, darker on white.
STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5c5c66; --paper: #ffffff;
  --line: #d5d5dc; --box: #f4f4f7; --link: #0057a3; --yes: #00664a; --no: #a33a00;
  --c0: #0072b2; --c1: #b07700; --c2: #008a66; --c3: #d55e00; --c4: #2b8cc4; --c5: #b5588c;
  --c6: #8c7d00; --blank: #767676; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ed; --soft: #a9a9b5; --paper: #17171a;
  --line: #3b3b44; --box: #222228; --link: #7cc0ff; --yes: #4fd3a6; --no: #ff9d66;
  --c0: #3d9fd9; --c1: #e69f00; --c2: #14b386; --c3: #e8742a; --c4: #56b4e9; --c5: #cc79a7;
  --c6: #c9b900; --blank: #8c8c8c; } }
* { box-sizing: border-box; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
body { margin: 0; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 3rem; padding-bottom: .2rem; border-bottom: 2px solid var(--line); }
p, dd { overflow-wrap: break-word; }
a { color: var(--link); }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; background: var(--box);
  border-radius: 3px; }
code { padding: 0 .2em; overflow-wrap: anywhere; }
article { margin: 2rem 0; padding: 1rem; border: 1px solid var(--line); border-radius: 6px; }
figure { margin: 1.2rem 0 0; }
/* What is wider than the page scrolls in a box of its own, which fades out where it goes on: the
  fade sticks to the edge, and comes to lie behind the content where that ends. Where a script
  finds that there is more, on this side or that, arrows say so. */
.scroll { display: flex; overflow-x: auto; scrollbar-width: thin;
  scrollbar-color: var(--soft) var(--box); }
.scroll > * { flex: 1 0 auto; }
.scroll > table, .scroll > img { flex-shrink: 1; }
.scroll::after { content: ""; flex: none; position: sticky; right: 0; z-index: 2; width: 1.5rem;
  pointer-events: none;
  background: linear-gradient(to right, transparent, var(--fade, var(--paper)) 90%); }
.scroll.more::after, .scroll.less::before { content: "›" / ""; display: grid; place-items: center;
  color: var(--link); font: 700 1.6rem/1 system-ui, sans-serif; }
.scroll.less::before { content: "‹" / ""; flex: none; position: sticky; left: 0; z-index: 2;
  width: 1.5rem; margin-right: -1.5rem; pointer-events: none;
  background: linear-gradient(to left, transparent, var(--fade, var(--paper)) 90%); }
summary { cursor: pointer; color: var(--link); }
dl { display: grid; grid-template-columns: fit-content(14rem) 1fr; gap: .25rem .8rem;
  margin: .6rem 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
figcaption, footer, .source { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0;
  border-bottom: 1px solid var(--line); }
th[scope=rowgroup] { padding-top: 1.2rem; }
.yes { color: var(--yes); }
.no { color: var(--no); }
@media (max-width: 40rem) { article { padding: .7rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { article { break-inside: avoid; } .scroll { overflow: visible; }
  .scroll::before, .scroll::after { display: none !important; } }
"""
# The browser itself refuses whatever is not in the file.
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
END = ("</main>", "</body>", "</html>")


def head(title: str, style: str = "") -> list[str]:
    """The lines of a page up to its content.

    Args:
        title: of the page, as text.
        style: CSS after `STYLE`.
    """
    return [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}{style}</style>",
        "</head>",
        "<body>",
        "<main>",
    ]


def data_uri(content: bytes, kind: str) -> str:
    """A file as an address; ``kind`` is its MIME type, e.g. image/png."""
    return f"data:{kind};base64,{b64encode(content).decode()}"


def commit() -> str:
    """The commit of this repository, and whether files differ from it; "unknown" without git."""
    here = Path(__file__).parent
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (" with changes" if changes.stdout.strip() else "")
