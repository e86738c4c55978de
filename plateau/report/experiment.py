"""The page of an experiment: tables, learning curves, utterances to look at and listen to."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from plateau.config import UserError
from plateau.data.features import FRAME_SHIFT
from plateau.decoding.files import Interval
from plateau.decoding.scoring import ScoredUtterance
from plateau.io import file_name, write_text
from plateau.machine import machine
from plateau.report.audio import sample_range, wav
from plateau.report.facts import About, Option
from plateau.report.page import END, commit, data_uri, head
from plateau.report.pictures import (
    PIXELS_PER_SECOND,
    chart,
    image_width,
    mel_range,
    posteriors,
    rows,
    spectrogram,
    text_width,
    time_axis,
)
from plateau.report.utterances import Shown
from plateau.results import LEGEND as BEST_LEGEND
from plateau.results import Record, is_marked, meanings, read_records, table_rows
from plateau.training.experiment import Experiment

MAX_SAMPLES = 1_000_000  # of sound in the page, which makes 2.7 MB; the utterances share them
PRINTED = 640  # pixels of a sheet of paper
NUMBER, WRONG = ' class="number"', ' class="wrong"'
LEGEND = {
    "true": "true words",
    "aligned": "aligned: the transcript, by the model",
    "heard": "heard: the hypothesis",
}
CURVES = {  # of log/epochs.jsonl: name, and unit
    "loss": ("loss", "nats per token"),
    "blank_fraction": ("frames whose likeliest label is blank", "share of frames"),
}
# What other programs read, in the folders align_SET and decode_SET_METHOD.
FILES = {
    "words.ctm": "when each word of the transcript is said, and how sure that is",
    "tokens.ctm": "the same for tokens",
    "doubtful.txt": "words of the transcript that may not have been said",
    "left_out.txt": "utterances that could not be aligned, and why",
    "hyp.ctm": "what was heard, and when",
    "hyp_tokens.ctm": "the same for tokens",
    "ref.stm": "the transcripts, for sclite",
    "nbest.txt": "the next best hypotheses, too",
    "wer.txt": "all errors",
}
# A word's button is at least as wide as a finger, and as its text, but not wider than a long word.
BUTTON, LONGEST_BUTTON = 28, 160  # pixels; it is as high as it is wide at least
EXTENT = 10  # height of the bar above it, which shows when the word is said
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
.scroll > .texts { flex: none; width: auto; margin: .8rem 0; }
.texts th, .texts td { padding: .1rem .5rem .1rem 0; border: 0; white-space: nowrap;
  unicode-bidi: isolate; }
.texts th { color: var(--soft); font-weight: normal; }
.texts .wrong { color: var(--no); font-weight: 600; }
audio { width: 100%; max-width: 30rem; height: 2.5rem; display: block; margin: .5rem 0; }
.timeline { flex: none; position: relative; padding-bottom: .3rem; }
.timeline h4 { position: sticky; left: 0; z-index: 3; width: max-content;
  max-width: min(100%, 80vw); margin: .5rem 0 0; font-size: .8rem; font-weight: normal;
  color: var(--soft); }
.timeline svg, .timeline img { display: block; overflow: visible; }
.timeline img { height: 120px; max-width: none; }
@media (prefers-color-scheme: dark) { .timeline img { filter: invert(1); } }
.posteriors path { stroke: currentColor; fill: currentColor; stroke-width: 1; }
.posteriors path.stem { stroke-width: 2; }
.posteriors text { fill: var(--ink); stroke: var(--paper); stroke-width: 3px; paint-order: stroke;
  text-anchor: middle; font-weight: 600; }
.axis path { stroke: var(--soft); }
.words { position: relative; background: var(--box); }
.words button { position: absolute; padding: 0 5px; border: 0; border-radius: 3px;
  background: var(--paper); color: var(--ink); box-shadow: inset 0 0 0 1px var(--soft);
  font: 12px system-ui, sans-serif; cursor: pointer; }
.words .label { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  unicode-bidi: isolate; }
.words .extent { position: absolute; min-width: 2px; background: var(--link);
  border-right: 1px solid var(--box); print-color-adjust: exact; }
.words button:hover, .words button:focus-visible { z-index: 1;
  box-shadow: inset 0 0 0 2px var(--link); }
.words button:hover .extent, .words button:focus-visible .extent { background: var(--no); }
.words button.playing { background: var(--link); color: var(--paper); }
.words button:disabled { cursor: default; color: var(--soft); }
.cursor { position: absolute; top: 0; bottom: 0; left: 0; width: 1px; background: var(--no);
  pointer-events: none; }
@media print { audio, .cursor { display: none; } .timeline { zoom: var(--fit); } }
"""


def write_report(
    exp_dir: Path,
    about: About,
    shown: Sequence[Shown],
    set_name: str,
    method: str,
    tokens: Sequence[str],
) -> Path:
    """Write ``report/index.html`` of an experiment; it needs no other file.

    Args:
        exp_dir: has results.json.
        about: the experiment.
        shown: utterances.
        set_name: the set that they are of.
        method: how their hypotheses were found.
        tokens: names of the model's labels.

    Raises:
        UserError: a file is missing.
    """
    exp_dir = Path(exp_dir).resolve()
    title = f"{exp_dir.name}: {exp_dir.parent.name} on {Experiment(exp_dir).corpus}"
    body = [
        f"<h1>{escape(title)}</h1>",
        *_definitions(about.facts),
        '<p><a href="#options">All options</a> are at the end.</p>',
        *_tables(_records(exp_dir)),
        *_files(exp_dir),
        *_curves(about),
        *_utterances(exp_dir, shown, set_name, method, tokens),
        *_all_options(about.options),
        f"<footer><p>{escape(machine())}. Commit {escape(commit())}. "
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}.</p></footer>",
        f"<script>\n{Path(__file__).with_name('listen.js').read_text(encoding='utf-8')}</script>",
    ]
    path = exp_dir / "report" / "index.html"
    write_text(path, "\n".join([*head(title, STYLE), *body, *END, ""]))
    return path


def _records(exp_dir: Path) -> list[Record]:
    path = exp_dir / "results.json"
    if not path.exists():
        command = shlex.join(["python", "local/results.py", str(exp_dir)])
        raise UserError(f"{path}: no such file; make it with {command}")
    return read_records(path)


def _all_options(options: Sequence[Option]) -> Iterator[str]:
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


def _definitions(texts: Mapping[str, str]) -> Iterator[str]:
    yield "<dl>"
    for name, text in texts.items():
        yield f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
    yield "</dl>"


def _tables(records: Sequence[Record]) -> Iterator[str]:
    yield "<h2>Results</h2>"
    tables = table_rows(records)
    for table in tables:
        yield from _table(table, "results")
        if is_marked(table[1:]):
            yield f'<p class="source">{escape(BEST_LEGEND)}</p>'
    yield from _definitions(meanings([heading for table in tables for heading in table[0]]))


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


def _files(exp_dir: Path) -> Iterator[str]:
    """Links to the files of alignments and hypotheses that are there and not empty."""
    folders = sorted([*exp_dir.glob("align_*"), *exp_dir.glob("decode_*")])
    found = {folder.name: _links(exp_dir, folder.name) for folder in folders}
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
    yield from _definitions({name: text for name, text in FILES.items() if name in there})
    yield "</details>"


def _links(exp_dir: Path, folder: str) -> dict[str, str]:
    """Links from the page to the files of a folder, by name."""
    return {name: link for name in FILES if (link := _link(exp_dir, folder, name))}


def _link(exp_dir: Path, folder: str, name: str, text: str = "") -> str:
    """A link from the page to a file; "" where there is none, or nothing in it."""
    path = exp_dir / folder / name
    if not path.is_file() or not path.stat().st_size:
        return ""
    return f'<a href="../{quote(folder)}/{quote(name)}">{escape(text or name)}</a>'


def _curves(about: About) -> Iterator[str]:
    """A chart for each quantity that was logged after each epoch, of train and dev together."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in about.epochs:
        for key, value in record.items():
            part, _, quantity = key.partition("_")
            if part in ("train", "dev") and quantity != "seconds":
                curves[quantity][part].append((record["epoch"], value))
    yield "<h2>Learning curves</h2>"
    yield '<div class="charts">'
    for quantity, parts in curves.items():
        name, unit = CURVES.get(quantity, (quantity.replace("_", " "), "mean over frames"))
        remark = f". {about.loss}" if quantity == "loss" and about.loss else ""
        yield f"<figure>{chart(name, unit, parts)}"
        yield f"<figcaption>{escape(name)}, {escape(unit)}{escape(remark)}</figcaption></figure>"
    yield "</div>"


def _utterances(
    exp_dir: Path, shown: Sequence[Shown], set_name: str, method: str, tokens: Sequence[str]
) -> Iterator[str]:
    yield "<h2>Utterances</h2>"
    if not shown:
        yield "<p>None was asked for.</p>"
        return
    yield (
        f"<p>Of {escape(set_name)}, decoded by {escape(method)}. What is wider than the page "
        "scrolls sideways. Click a word to hear exactly what lies under the bar above it, which "
        "shows when it is said. Above the posteriors are the tokens that the decoder emitted; "
        "blank is grey.</p>"
    )
    for utterance in shown:
        textgrid = file_name(utterance.scored.id, ".TextGrid")
        yield from _utterance(
            utterance,
            tokens,
            MAX_SAMPLES // len(shown),
            _link(exp_dir, f"align_{set_name}", textgrid, "TextGrid of the alignment"),
        )


def _utterance(
    shown: Shown, tokens: Sequence[str], max_samples: int, textgrid: str
) -> Iterator[str]:
    samples, rate, scored = shown.samples[:max_samples], shown.sampling_rate, shown.scored
    seconds = len(samples) / rate
    errors = scored.words
    cut = f", the first {seconds:.2f} s are shown" if len(samples) < len(shown.samples) else ""
    yield "<article>"
    yield f"<h3>{escape(scored.id)}</h3>"
    yield (
        f'<p class="source">{escape(", ".join(shown.reasons))}; word errors: {errors.total} of '
        f"{errors.reference_length}; {len(shown.samples) / rate:.2f} s{cut}"
        f"{'; ' if textgrid else ''}{textgrid}</p>"
    )
    yield from _texts(scored)
    # The player is where the words' sound comes from, too.
    yield (
        f'<audio controls preload="metadata" data-rate="{rate}" '
        f'aria-label="sound of {escape(scored.id)}" '
        f'src="{data_uri(wav(samples, rate), "audio/wav")}"></audio>'
    )
    width = round(seconds * PIXELS_PER_SECOND)
    fit = min(1.0, PRINTED / max(width, 1))
    yield (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(scored.id)} over time">'
    )
    yield f'<div class="timeline" style="width:{width}px;--fit:{fit:.3f}">'
    frames = shown.features[: round(seconds / FRAME_SHIFT)]
    low, high = mel_range(rate)
    yield f"<h4>spectrogram: {frames.shape[1]} mel bins, {low:.0f} Hz (below) to {high:.0f} Hz</h4>"
    yield (
        f'<img alt="spectrogram of {escape(scored.id)}" style="width:{image_width(frames)}px" '
        f'src="{data_uri(spectrogram(frames), "image/png")}">'
    )
    if shown.log_probs is not None or shown.tokens:
        drawn = {
            "posteriors (CTC), 0 to 1": shown.log_probs is not None,
            "tokens heard": shown.tokens,
        }
        yield f"<h4>{', '.join(name for name, there in drawn.items() if there)}</h4>"
        yield posteriors(shown.log_probs, shown.tokens, tokens, shown.subsampling_factor, seconds)
    for kind, words in shown.words.items():
        yield from _track(kind, [w for w in words if w.start < seconds], rate, len(samples))
    yield time_axis(seconds)
    yield f'<div class="cursor" data-pixels-per-second="{PIXELS_PER_SECOND}"></div>'
    yield "</div>"
    yield "</div>"
    yield "</article>"


def _texts(scored: ScoredUtterance) -> Iterator[str]:
    """Reference and hypothesis, each word above what it was taken for."""
    if not scored.alignment:
        yield "<p>Neither reference nor hypothesis has a word.</p>"
        return
    yield (
        f'<div class="scroll" tabindex="0" role="region" aria-label="texts of {escape(scored.id)}">'
    )
    yield '<table class="texts">'
    for name, side in (("reference", 0), ("hypothesis", 1)):
        cells = "".join(
            f"<td{'' if pair[0] == pair[1] else WRONG}>{escape(pair[side]) or '∅'}</td>"
            for pair in scored.alignment
        )
        yield f'<tr><th scope="row">{name}</th>{cells}</tr>'
    yield "</table></div>"


def _track(kind: str, words: Sequence[Interval], rate: int, num_samples: int) -> Iterator[str]:
    """Words as buttons, in as many rows as they need; none where there are no words."""
    if not words:
        return
    all_of_it = num_samples / rate * PIXELS_PER_SECOND
    boxes = []
    for word in words:
        start, end = (min(t * PIXELS_PER_SECOND, all_of_it) for t in word[:2])
        text = min(text_width(word.label) + 12, LONGEST_BUTTON)
        width = max(BUTTON, end - start, text)
        left = max(0.0, min(start, all_of_it - width))
        boxes.append((left, left + width))
    in_rows = rows(boxes)
    height = EXTENT + (max(in_rows) + 1) * (BUTTON + 2)
    yield f"<h4>{LEGEND[kind]}</h4>"
    yield f'<div class="words" style="height:{height}px">'
    for word, box, row in zip(words, boxes, in_rows, strict=True):
        yield _word(word, kind, box, EXTENT + row * (BUTTON + 2), rate, num_samples)
    yield "</div>"


def _word(
    word: Interval, kind: str, box: tuple[float, float], top: int, rate: int, num_samples: int
) -> str:
    """A button, and in it the bar at the top of the track that is as long as the word."""
    first, end = sample_range(word, rate, num_samples)
    begin, length = (x * PIXELS_PER_SECOND / rate for x in (first, end - first))
    sure = "" if word.confidence is None else f", confidence {word.confidence:.2f}"
    what = escape(f"{word.label}, {kind}, {word.start:.3f} to {word.end:.3f} s{sure}")
    return (
        f'<button type="button" style="left:{box[0]:.1f}px;top:{top}px;'
        f'width:{box[1] - box[0]:.1f}px;height:{BUTTON}px" '
        f'data-first="{first}" data-end="{end}" title="{what}" aria-label="play {what}"'
        f"{'' if first < end else ' disabled'}>"
        f'<span class="extent" style="left:{begin - box[0]:.1f}px;top:{1 - top}px;'
        f'width:{length:.1f}px;height:{EXTENT - 3}px"></span>'
        f'<span class="label">{escape(word.label)}</span></button>'
    )
