"""The page of an experiment: tables, learning curves, utterances to look at and listen to."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from plateau.config import UserError
from plateau.data.features import FRAME_SHIFT
from plateau.decoding.files import Interval
from plateau.io import read_json, write_text
from plateau.machine import machine
from plateau.report.audio import sample_range, wav
from plateau.report.page import END, commit, data_uri, head
from plateau.report.pictures import (
    PIXELS_PER_SECOND,
    chart,
    image_width,
    posteriors,
    spectrogram,
    time_axis,
)
from plateau.report.utterances import Shown
from plateau.results import LEGEND as LEGEND_OF_TABLE
from plateau.results import Record, is_marked, table_rows

MAX_SAMPLES = 1_000_000  # of sound in the page, which makes 2.7 MB; the utterances share them
NUMBER, WRONG = ' class="number"', ' class="wrong"'
LEGEND = {
    "true": "true words",
    "aligned": "aligned: the transcript, by the model",
    "heard": "heard: the hypothesis",
}
STYLE = """
h3 { margin: 0 0 .3rem; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 1rem; }
.charts figure { margin: 0; }
svg { fill: var(--soft); }
svg text { font: 12px system-ui, sans-serif; }
.chart { width: 100%; max-width: 36rem; height: auto; display: block; }
.chart .grid { stroke: var(--line); }
.chart polyline { stroke-width: 2; }
.scroll + .scroll { margin-top: 1.5rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.texts { width: auto; margin: .8rem 0; }
.texts th, .texts td { padding: .1rem .5rem .1rem 0; border: 0; white-space: nowrap; }
.texts th { color: var(--soft); font-weight: normal; }
.texts .wrong { color: var(--no); font-weight: 600; }
audio { width: 100%; max-width: 30rem; height: 2.5rem; display: block; margin: .5rem 0; }
.timeline { position: relative; padding-bottom: .3rem; }
.timeline h4 { position: sticky; left: 0; width: max-content; margin: .5rem 0 0;
  font-size: .8rem; font-weight: normal; color: var(--soft); }
.timeline svg, .timeline img { display: block; }
.timeline img { height: 120px; max-width: none; }
@media (prefers-color-scheme: dark) { .timeline img { filter: invert(1); } }
.posteriors path { stroke-width: 1; }
.posteriors text { text-anchor: middle; font-weight: 600; }
.axis path { stroke: var(--soft); }
.words { position: relative; height: 2rem; background: var(--box); }
.words button { position: absolute; top: 0; height: 100%; padding: 0; overflow: hidden;
  border: 0; border-left: 2px solid var(--link); border-right: 1px solid var(--line);
  background: var(--paper); color: var(--ink); font: 12px system-ui, sans-serif;
  white-space: nowrap; cursor: pointer; }
.words button:hover, .words button:focus-visible { background: var(--box);
  outline: 2px solid var(--link); z-index: 1; }
.words button.playing { background: var(--link); color: var(--paper); }
.words button:disabled { cursor: default; color: var(--soft); }
.cursor { position: absolute; top: 0; bottom: 0; left: 0; width: 1px; background: var(--no);
  pointer-events: none; }
"""


def write_report(
    exp_dir: Path, shown: Sequence[Shown], set_name: str, method: str, tokens: Sequence[str]
) -> Path:
    """Write ``report/index.html`` of an experiment; it needs no other file.

    Args:
        exp_dir: has results.json and log/epochs.jsonl.
        shown: utterances.
        set_name: the set that they are of.
        method: how their hypotheses were found.
        tokens: names of the model's labels.

    Raises:
        UserError: a file is missing.
    """
    exp_dir = Path(exp_dir).resolve()
    title = f"{exp_dir.name}: {exp_dir.parent.name} on {exp_dir.parent.parent.name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        *_tables(read_json(_existing(exp_dir / "results.json"))),
        *_curves(_existing(exp_dir / "log" / "epochs.jsonl")),
        *_utterances(shown, set_name, method, tokens),
        f"<footer><p>{escape(machine())}. Commit {escape(commit())}. "
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}.</p></footer>",
        f"<script>\n{Path(__file__).with_name('listen.js').read_text(encoding='utf-8')}</script>",
    ]
    path = exp_dir / "report" / "index.html"
    write_text(path, "\n".join([*head(title, STYLE), *body, *END, ""]))
    return path


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            f"{path}: no such file; make it with ./run.sh --stage 5, which goes on to 8"
        )
    return path


def _tables(records: Sequence[Record]) -> Iterator[str]:
    yield "<h2>Results</h2>"
    for heading, *rows in table_rows(records):
        yield '<div class="scroll"><table>'
        yield f"<thead>{_row('th', heading)}</thead>"
        yield f"<tbody>{''.join(_row('td', row) for row in rows)}</tbody>"
        yield "</table></div>"
        if is_marked(rows):
            yield f'<p class="source">{escape(LEGEND_OF_TABLE)}</p>'


def _row(tag: str, cells: Sequence[str]) -> str:
    """A row of a table of results, whose first two columns are no numbers."""
    return "<tr>{}</tr>".format(
        "".join(
            f"<{tag}{NUMBER if i > 1 else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )
    )


def _curves(path: Path) -> Iterator[str]:
    """A chart for each quantity that was logged after each epoch, of train and dev together."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for key, value in record.items():
            part, _, quantity = key.partition("_")
            if part in ("train", "dev") and quantity != "seconds":
                curves[quantity][part].append((record["epoch"], value))
    yield "<h2>Learning curves</h2>"
    yield '<div class="charts">'
    for quantity, parts in curves.items():
        name = {"loss": "loss, nats per token"}.get(quantity, quantity.replace("_", " "))
        yield f"<figure>{chart(name, parts)}<figcaption>{escape(name)}</figcaption></figure>"
    yield "</div>"


def _utterances(
    shown: Sequence[Shown], set_name: str, method: str, tokens: Sequence[str]
) -> Iterator[str]:
    yield "<h2>Utterances</h2>"
    if not shown:
        yield "<p>None was asked for.</p>"
        return
    yield (
        f"<p>Of {escape(set_name)}, decoded by {escape(method)}. Click a word to hear exactly what "
        "lies between its edges. Above the posteriors are the tokens that the decoder "
        "emitted; blank is grey.</p>"
    )
    for utterance in shown:
        yield from _utterance(utterance, tokens, MAX_SAMPLES // len(shown))


def _utterance(shown: Shown, tokens: Sequence[str], max_samples: int) -> Iterator[str]:
    samples, rate, scored = shown.samples[:max_samples], shown.sampling_rate, shown.scored
    seconds = len(samples) / rate
    errors = scored.words
    cut = f", the first {seconds:.2f} s are shown" if len(samples) < len(shown.samples) else ""
    yield "<article>"
    yield f"<h3>{escape(scored.id)}</h3>"
    yield (
        f'<p class="source">{escape(", ".join(shown.reasons))}; word errors: {errors.total} of '
        f"{errors.reference_length}; {len(shown.samples) / rate:.2f} s{cut}</p>"
    )
    yield from _texts(scored.alignment)
    # The player is where the words' sound comes from, too.
    yield (
        f'<audio controls preload="metadata" data-rate="{rate}" '
        f'src="{data_uri(wav(samples, rate), "audio/wav")}"></audio>'
    )
    yield '<div class="scroll">'
    yield f'<div class="timeline" style="width:{round(seconds * PIXELS_PER_SECOND)}px">'
    frames = shown.features[: round(seconds / FRAME_SHIFT)]
    yield "<h4>spectrogram (mel)</h4>"
    yield (
        f'<img alt="spectrogram of {escape(scored.id)}" style="width:{image_width(frames)}px" '
        f'src="{data_uri(spectrogram(frames), "image/png")}">'
    )
    yield f"<h4>{'tokens' if shown.log_probs is None else 'posteriors (CTC) and tokens'}</h4>"
    yield posteriors(shown.log_probs, shown.tokens, tokens, shown.subsampling_factor, seconds)
    for kind, words in shown.words.items():
        yield f"<h4>{LEGEND[kind]}</h4>"
        yield '<div class="words">'
        yield from (_word(word, kind, rate, len(samples)) for word in words if word.start < seconds)
        yield "</div>"
    yield time_axis(seconds)
    yield f'<div class="cursor" data-pixels-per-second="{PIXELS_PER_SECOND}"></div>'
    yield "</div>"
    yield "</div>"
    yield "</article>"


def _texts(alignment: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Reference and hypothesis, each word above what it was taken for."""
    yield '<div class="scroll"><table class="texts">'
    for name, side in (("reference", 0), ("hypothesis", 1)):
        cells = "".join(
            f"<td{'' if pair[0] == pair[1] else WRONG}>{escape(pair[side]) or '∅'}</td>"
            for pair in alignment
        )
        yield f'<tr><th scope="row">{name}</th>{cells}</tr>'
    yield "</table></div>"


def _word(word: Interval, kind: str, rate: int, num_samples: int) -> str:
    """A button, as wide as the word is long."""
    first, end = sample_range(word, rate, num_samples)
    left, width = (x * PIXELS_PER_SECOND for x in (word.start, word.end - word.start))
    sure = "" if word.confidence is None else f", confidence {word.confidence:.2f}"
    what = escape(f"{word.label}, {kind}, {word.start:.3f} to {word.end:.3f} s{sure}")
    return (
        f'<button type="button" style="left:{left:.1f}px;width:{width:.1f}px" '
        f'data-first="{first}" data-end="{end}" title="{what}" aria-label="play {what}"'
        f"{'' if first < end else ' disabled'}>{escape(word.label)}</button>"
    )
