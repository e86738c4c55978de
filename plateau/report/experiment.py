"""The page of an experiment on speech: utterances to look at and listen to."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from plateau.data.features import FRAME_SHIFT
from plateau.decoding.files import Interval
from plateau.decoding.scoring import ScoredUtterance
from plateau.io import file_name
from plateau.report.audio import sample_range, wav
from plateau.report.facts import About
from plateau.report.page import data_uri
from plateau.report.pictures import (
    PIXELS_PER_SECOND,
    image_width,
    mel_range,
    posteriors,
    rows,
    spectrogram,
    text_width,
    time_axis,
)
from plateau.report.sections import link_to, write_page
from plateau.report.utterances import Shown

MAX_SAMPLES = 1_000_000  # of sound in the page, which makes 2.7 MB; the utterances share them
PRINTED = 640  # pixels of a sheet of paper
WRONG = ' class="wrong"'
LEGEND = {
    "true": "true words",
    "aligned": "aligned: the transcript, by the model",
    "heard": "heard: the hypothesis",
    "filled": "filled in: words that were masked, found by the others and the audio",
}
CURVES = {  # of log/epochs.jsonl: name, and unit
    "loss": ("loss", "nats per token"),
    "blank_fraction": ("frames whose likeliest label is blank", "share of frames"),
    "masked_loss": ("cross entropy of masked tokens", "nats per masked token"),
    "masked_right": ("masked tokens that are found", "share of masked tokens"),
    "ctc_blank_fraction": ("frames whose likeliest label is blank, by CTC", "share of frames"),
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
    "filled.ctm": "words that were filled into holes, when they are said, and how sure that is",
    "wer.txt": "all errors",
}
# A word's button is at least as wide as a finger, and as its text, but not wider than a long word.
BUTTON, LONGEST_BUTTON = 28, 160  # pixels; it is as high as it is wide at least
EXTENT = 10  # height of the bar above it, which shows when the word is said
STYLE = """
.scroll > .texts { flex: none; width: auto; margin: .8rem 0; }
.texts th, .texts td { padding: .1rem .5rem .1rem 0; border: 0; white-space: nowrap;
  unicode-bidi: isolate; }
.texts th { color: var(--soft); font-weight: normal; }
.filled b { color: var(--link); }
.texts .wrong { color: var(--no); font-weight: 600; }
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
@media print { .cursor { display: none; } .timeline { zoom: var(--fit); } }
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
    body = _utterances(exp_dir, shown, set_name, method, tokens)
    return write_page(exp_dir, about, body, files=FILES, curves=CURVES, style=STYLE)


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
            link_to(exp_dir, f"align_{set_name}", textgrid, "TextGrid of the alignment"),
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
    if filled := shown.words.get("filled"):
        words = (
            escape(word.label) if word.confidence is None else f"<b>{escape(word.label)}</b>"
            for word in filled
        )
        yield f'<p class="filled">with holes, filled in: {" ".join(words)}</p>'
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
        if kind == "filled":
            words = [word for word in words if word.confidence is not None]
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
