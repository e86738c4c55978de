"""The report: one HTML file that holds the whole story, pictures included."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from plateau.graphs.graph import draw
from plateau.graphs.topology import STANDARD, chain, standard_segments
from plateau.io import replacing, write_text
from plateau.machine import machine
from plateau.report.page import END, commit, data_uri, head
from toy_peaky.experiment import Experiment, Outcome, Section
from toy_peaky.layout import png
from toy_peaky.pictures import animation
from toy_peaky.summary import flags

ANIMATED = 10  # snapshots from which on there is an animation
TITLE = "Why and when training with CTC becomes peaky"
INTRODUCTION = """\
A model that is trained with CTC (connectionist temporal classification) gives each frame of its
input a label or blank, and is told only which labels come in which order. Often it ends up *peaky*:
one label, mostly blank, dominates over time, and the others appear in very few frames. That is not
the same as *sharp*: in a single frame one label dominates. A model can be either without the other.
In numbers, peakiness is the largest share that a label has of the posteriors, averaged over frames;
sharpness is the largest posterior of a frame, averaged over frames.

The experiments below are toys, from a bias to a BLSTM on constructed input, in which this can be
seen and counted. Each tries a claim of the notes that this recipe began with, or of Zeyer,
Schlüter, Ney, "Why does CTC result in peaky behavior?" (arXiv 2105.14849), or an open question.
Targets are label topologies as weighted finite-state acceptors, composed with the model's scores by
k2. Losses are in nats, summed over frames. Label numbers start at 0; blank, or silence, is the last
and grey in every picture."""

STYLE = """
h3 { margin: 0 0 .3rem; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
h3 a { color: inherit; text-decoration: none; }
pre { padding: .5rem .7rem; overflow-x: auto; }
pre code { padding: 0; overflow-wrap: normal; }
.picture { --fade: #fff; background: #fff; padding: .5rem; border-radius: 4px; }
.picture img { display: block; width: 100%; min-width: 40rem; height: auto; }
td { min-width: 8rem; }
.verdict { white-space: nowrap; font-weight: 600; font-family: system-ui, sans-serif;
  font-size: 1rem; }
.none { color: var(--soft); }
"""


def write_report(
    sections: Sequence[Section], outcomes: Mapping[str, Outcome], directory: Path
) -> Path:
    """Draw the pictures and write the page; it needs no other file.

    Args:
        sections: the story.
        outcomes: by the name of the experiment. Experiments without one are shown as not run.
        directory: gets ``report/index.html``, beside it each picture in ``figures/`` and the
            standard topologies in the language of Graphviz in ``graphs/``.

    Returns:
        the page.
    """
    start = time.perf_counter()
    directory = Path(directory) / "report"
    for folder in ("figures", "graphs"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    for name in STANDARD:
        draw(chain(standard_segments(name)), directory / "graphs" / f"{name}.gv", name)
    names = {experiment.name for section in sections for experiment in section.experiments}
    body = [
        *_opening(sections, outcomes, names),
        *_table(sections, outcomes, names),
        *(line for section in sections for line in _section(section, outcomes, names, directory)),
    ]
    seconds = time.perf_counter() - start
    page = directory / "index.html"
    write_text(page, "\n".join([*head(TITLE, STYLE), *body, *_closing(outcomes, seconds), ""]))
    return page


def _opening(
    sections: Sequence[Section], outcomes: Mapping[str, Outcome], names: set[str]
) -> Iterator[str]:
    yield f"<h1>{escape(TITLE)}</h1>"
    yield from _paragraphs(INTRODUCTION, names)
    ran = [outcomes[name] for name in names if name in outcomes]
    held = sum(outcome.holds for outcome in ran)
    yield (
        f"<p><strong>{held} of {len(ran)} claims hold.</strong> Those that do not are as much of a "
        "result; a remark says what was found instead.</p>"
    )
    yield '<nav aria-label="Contents">'
    yield "<ul>"
    yield '<li><a href="#claims">All claims</a></li>'
    for section in sections:
        yield f'<li><a href="#{_anchor(section)}">{escape(section.title)}</a></li>'
    yield "</ul>"
    yield "</nav>"


def _table(
    sections: Sequence[Section], outcomes: Mapping[str, Outcome], names: set[str]
) -> Iterator[str]:
    yield '<h2 id="claims">All claims</h2>'
    yield '<div class="scroll">'
    yield "<table>"
    yield '<thead><tr><th scope="col">experiment</th><th scope="col">claim</th>'
    yield '<th scope="col">seen</th><th scope="col">holds</th></tr></thead>'
    for section in sections:
        yield "<tbody>"
        yield f'<tr><th colspan="4" scope="rowgroup">{escape(section.title)}</th></tr>'
        for experiment in section.experiments:
            outcome = outcomes.get(experiment.name)
            cells = [
                f'<a href="#{escape(experiment.name)}">{escape(experiment.name)}</a>'
                f'<br><span class="source">{_inline(experiment.source, names)}</span>',
                _inline(experiment.claim, names),
                _inline(outcome.seen, names) if outcome else "",
                _verdict(outcome),
            ]
            yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        yield "</tbody>"
    yield "</table>"
    yield "</div>"


def _section(
    section: Section, outcomes: Mapping[str, Outcome], names: set[str], directory: Path
) -> Iterator[str]:
    yield f'<section id="{_anchor(section)}">'
    yield f"<h2>{escape(section.title)}</h2>"
    yield from _paragraphs(section.text, names)
    for experiment in section.experiments:
        yield from _experiment(experiment, outcomes.get(experiment.name), names, directory)
    yield "</section>"


def _experiment(
    experiment: Experiment, outcome: Outcome | None, names: set[str], directory: Path
) -> Iterator[str]:
    name = escape(experiment.name)
    yield f'<article id="{name}">'
    yield f'<h3><a href="#{name}">{name}</a> {_verdict(outcome)}</h3>'
    facts = {
        "claim": experiment.claim,
        "source": experiment.source,
        "seen": outcome.seen if outcome else "",
        "remark": experiment.remark,
    }
    yield "<dl>"
    for key, text in facts.items():
        if text:
            yield f"<dt>{key}</dt><dd>{_inline(text, names)}</dd>"
    yield "</dl>"
    yield f"<pre><code>python toy_peaky/run.py {name}</code></pre>"
    if experiment.setups:
        yield "<details><summary>options</summary>"
        yield "<dl>"
        for setup, options in experiment.setups.items():
            yield f"<dt>{escape(setup)}</dt><dd><code>{escape(flags(options))}</code></dd>"
        yield "</dl>"
        yield "</details>"
    if outcome:
        yield from _pictures(outcome, directory)
    yield "</article>"


def _pictures(outcome: Outcome, directory: Path) -> Iterator[str]:
    """The pictures as HTML; each is written to a file, too."""
    experiment = outcome.experiment
    for picture in experiment.pictures:
        figure = picture(outcome)
        caption = figure.get_label()
        image = png(figure)
        _write_bytes(directory / "figures" / f"{experiment.name}_{picture.__name__}.png", image)
        yield _figure(image, "png", f"{experiment.name}: {caption.split('. ')[0]}.", caption)
    if len(experiment.snapshots) >= ANIMATED:
        image = animation(outcome)
        _write_bytes(directory / "figures" / f"{experiment.name}.gif", image)
        setup = next(iter(experiment.setups))
        yield "<details><summary>animation of the posteriors during training</summary>"
        yield _figure(image, "gif", f"{experiment.name}: posteriors as training goes on.", setup)
        yield "</details>"


def _figure(image: bytes, kind: str, alternative: str, caption: str) -> str:
    return (
        '<figure><div class="scroll picture">'
        f'<img alt="{escape(alternative)}" src="{data_uri(image, f"image/{kind}")}">'
        "</div>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _closing(outcomes: Mapping[str, Outcome], seconds: float) -> Iterator[str]:
    runs = sum(len(results) for o in outcomes.values() for results in o.results.values())
    computing = sum(outcome.seconds for outcome in outcomes.values())
    links = ", ".join(f'<a href="graphs/{name}.gv">{name}</a>' for name in STANDARD)
    yield "<footer>"
    yield f"<p>{escape(machine())}. Commit {escape(commit())}. "
    yield f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}. "
    yield f"{runs} runs: {computing:.0f} s, all processes together; pictures: {seconds:.0f} s.</p>"
    yield f"<p>The standard topologies for Graphviz (<code>dot -Tsvg</code>): {links}.</p>"
    yield "</footer>"
    yield from END


def _verdict(outcome: Outcome | None) -> str:
    """In words and colour."""
    if outcome is None:
        return '<span class="verdict none">not run</span>'
    if outcome.holds:
        return '<span class="verdict yes">✓ holds</span>'
    return '<span class="verdict no">✗ does not hold</span>'


def _anchor(section: Section) -> str:
    return "section-" + re.sub(r"\W+", "-", section.title.lower()).strip("-")


def _paragraphs(text: str, names: set[str]) -> list[str]:
    return [f"<p>{_inline(part, names)}</p>" for part in re.split(r"\n\s*\n", text.strip())]


def _inline(text: str, names: set[str]) -> str:
    """Text as HTML: code between backticks, *emphasis*, links to experiments and to arXiv."""

    def code(match: re.Match[str]) -> str:
        inner = match[1]
        shown = f"<code>{inner}</code>"
        return f'<a href="#{inner}">{shown}</a>' if inner in names else shown

    parts = re.split(r"(`[^`]+`)", escape(text))
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = re.sub(r"`([^`]+)`", code, part)
        else:
            part = re.sub(r"(?<![\w*])\*(\w[^*]*\w|\w)\*(?![\w*])", r"<em>\1</em>", part)
            link = r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>'
            parts[i] = re.sub(r"arXiv[: ](\d{4}\.\d{4,5})", link, part)
    return "".join(parts)


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
