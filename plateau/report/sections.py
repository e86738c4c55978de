"""What the page of every experiment has: facts, results, files, learning curves, options."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from plateau.config import UserError
from plateau.io import write_text
from plateau.machine import machine
from plateau.report.facts import About, Option
from plateau.report.page import END, commit, head
from plateau.report.pictures import chart
from plateau.results import LEGEND, Record, is_marked, meanings, read_records, table_rows
from plateau.training.experiment import Experiment

NUMBER = ' class="number"'
STYLE = """
h3 { margin: 0 0 .3rem; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 1rem; }
.charts figure { margin: 0; }
svg { fill: var(--soft); }
svg text { font: 12px system-ui, sans-serif; }
.chart { width: 100%; max-width: 30rem; height: auto; display: block; }
.chart .grid { stroke: var(--line); }
.chart .zero { stroke: var(--soft); }
.chart polyline, path.key { fill: none; stroke: currentColor; stroke-width: 2; }
circle { fill: currentColor; }
.scroll + .scroll { margin-top: 1.5rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
audio { width: 100%; max-width: 30rem; height: 2.5rem; display: block; margin: .5rem 0; }
@media print { audio { display: none; } }
"""


def write_page(
    exp_dir: Path,
    about: About,
    body: Iterable[str],
    *,
    files: Mapping[str, str],
    curves: Mapping[str, tuple[str, str]],
    style: str,
) -> Path:
    """Write ``report/index.html`` of an experiment; it needs no other file.

    Args:
        exp_dir: has results.json.
        about: the experiment.
        body: lines of HTML, what the page shows between learning curves and options.
        files: what files for other programs say, by name; see `file_links`.
        curves: names and units of what was logged; see `learning_curves`.
        style: CSS after that of all pages.

    Raises:
        UserError: a file is missing.
    """
    exp_dir = Path(exp_dir).resolve()
    title = f"{exp_dir.name}: {exp_dir.parent.name} on {Experiment(exp_dir).corpus}"
    script = Path(__file__).with_name("listen.js").read_text(encoding="utf-8")
    lines = [
        *head(title, STYLE + style),
        f"<h1>{escape(title)}</h1>",
        *definitions(about.facts),
        '<p><a href="#options">All options</a> are at the end.</p>',
        *results(_records(exp_dir)),
        *file_links(exp_dir, files),
        *learning_curves(about, curves),
        *body,
        *all_options(about.options),
        f"<footer><p>{escape(machine())}. Commit {escape(commit())}. "
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}.</p></footer>",
        f"<script>\n{script}</script>",
        *END,
    ]
    path = exp_dir / "report" / "index.html"
    write_text(path, "\n".join([*lines, ""]))
    return path


def _records(exp_dir: Path) -> list[Record]:
    path = exp_dir / "results.json"
    if not path.exists():
        command = shlex.join(["python", "local/results.py", str(exp_dir)])
        raise UserError(f"{path}: no such file; make it with {command}")
    return read_records(path)


def definitions(texts: Mapping[str, str]) -> Iterator[str]:
    """Names and what they mean."""
    yield "<dl>"
    for name, text in texts.items():
        yield f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
    yield "</dl>"


def results(records: Sequence[Record]) -> Iterator[str]:
    """The tables of results, and what their columns mean."""
    yield "<h2>Results</h2>"
    tables = table_rows(records)
    for table in tables:
        yield from _table(table, "results")
        if is_marked(table[1:]):
            yield f'<p class="source">{escape(LEGEND)}</p>'
    yield from definitions(meanings([heading for table in tables for heading in table[0]]))


def _table(table: Sequence[Sequence[str]], name: str) -> Iterator[str]:
    """Rows of cells, headings first; in tables of results the third column and on are numbers."""
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
    yield f'<table class="{name}">'
    for part, tag, some in (("thead", 'th scope="col"', table[:1]), ("tbody", "td", table[1:])):
        yield f"<{part}>"
        for row in some:
            cells = (
                f"<{tag}{NUMBER if name == 'results' and i > 1 else ''}>{_cell(cell)}</{tag[:2]}>"
                for i, cell in enumerate(row)
            )
            yield f"<tr>{''.join(cells)}</tr>"
        yield f"</{part}>"
    yield "</table></div>"


def _cell(text: str) -> str:
    """Text that can be broken within names."""
    return re.sub(r"[._](?=\D)", r"\g<0><wbr>", escape(text))


def file_links(exp_dir: Path, meanings: Mapping[str, str]) -> Iterator[str]:
    """Links to the files of alignments and decoding that are there and not empty.

    Args:
        exp_dir: the experiment's folder.
        meanings: what the files say, by their names.
    """
    folders = sorted([*exp_dir.glob("align_*"), *exp_dir.glob("decode_*")])
    found = {folder.name: _links(exp_dir, folder.name, meanings) for folder in folders}
    if not any(found.values()):
        return
    yield "<details><summary>files for other programs</summary>"
    yield "<dl>"
    for folder, links in found.items():
        if links:
            yield f"<dt>{escape(folder)}</dt><dd>{', '.join(links.values())}</dd>"
    yield "</dl>"
    yield "<p>What they say:</p>"
    there = {name for links in found.values() for name in links}
    yield from definitions({name: text for name, text in meanings.items() if name in there})
    yield "</details>"


def _links(exp_dir: Path, folder: str, names: Iterable[str]) -> dict[str, str]:
    """Links from the page to the files of a folder, by name."""
    return {name: link for name in names if (link := link_to(exp_dir, folder, name))}


def link_to(exp_dir: Path, folder: str, name: str, text: str = "") -> str:
    """A link from the page to a file; "" where there is none, or nothing in it."""
    path = exp_dir / folder / name
    if not path.is_file() or not path.stat().st_size:
        return ""
    return f'<a href="../{quote(folder)}/{quote(name)}">{escape(text or name)}</a>'


def learning_curves(about: About, names: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """A chart for each quantity that was logged after each epoch, of train and dev together.

    Args:
        about: the experiment.
        names: name and unit of a quantity; of others, their own, and a mean over frames.
    """
    curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in about.epochs:
        for key, value in record.items():
            part, _, quantity = key.partition("_")
            if part in ("train", "dev") and quantity != "seconds":
                curves[quantity][part].append((record["epoch"], value))
    yield "<h2>Learning curves</h2>"
    yield '<div class="charts">'
    for quantity, parts in curves.items():
        name, unit = names.get(quantity, (quantity.replace("_", " "), "mean over frames"))
        remark = f". {about.loss}" if quantity == "loss" and about.loss else ""
        yield f"<figure>{chart(name, unit, parts)}"
        yield f"<figcaption>{escape(name)}, {escape(unit)}{escape(remark)}</figcaption></figure>"
    yield "</div>"


def all_options(options: Sequence[Option]) -> Iterator[str]:
    """Tables of the options that differ from the defaults, and of all."""
    others = [option for option in options if option.value != option.default]
    yield '<h2 id="options">Options</h2>'
    yield f"<p>{len(others)} of {len(options)} differ from the recipe's defaults:</p>"
    yield from _options(others)
    yield "<details><summary>all options</summary>"
    yield from _options(options)
    yield "</details>"


def _options(options: Sequence[Option]) -> Iterator[str]:
    table = [["option", "value", "default"], *([o.name, o.value, o.default] for o in options)]
    yield from _table(table, "options")
