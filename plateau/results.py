"""`results.json`: a list of records {"set", "method", "metric", "value"}, and its tables."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from plateau.errors import UserError
from plateau.io import read_json


class Record(TypedDict):
    """One figure of an experiment; the unit is in the metric's name where there is one."""

    set: str
    method: str
    metric: str
    value: float


# What the tables show, in this order: metric, heading. The first also has real-time factors.
RECOGNITION = {"wer": "WER %", "cer": "CER %"}
RTF = "rtf_batch_"  # and a batch size: the name of a real-time factor
RTF_HEADING = "RTF batch "
ALIGNMENT = {  # plateau/alignment/measures.py
    "word_start_delay_ms": "start delay ms",
    "word_end_delay_ms": "end delay ms",
    "word_boundary_error_ms": "boundary error ms",
    "word_boundary_within_50ms": "within 50 ms %",
    "blank_fraction": "blank fraction",
}
FILLING = {  # masked_text/holes.py
    "masked_words_right": "masked words right %",
    "masked_words_right_ctc": "CTC alone %",
    "masked_words_right_ctc_without_text": "CTC, no text %",
    "masked_words_right_text_only": "text alone %",
    "masked_words_right_unigram": "commonest word %",
    "filled_text_wer": "WER of all %",
}
BOUNDS = {  # vrnn/decode.py
    "bound_nats_per_sequence": "bound, nats a sequence",
    "bound_nats_per_step": "nats a step",
    "bound_bits_per_dim": "bits a value",
    "kl_nats_per_step": "KL, nats a step",
    "importance_weighted_gain_nats": "importance-weighted gain, nats",
}
# Digits after the point. Files have values as they are: what is shown is rounded here, once.
DIGITS = {"wer": 2, "cer": 2, "train_seconds": 0, "blank_fraction": 3}
DIGITS |= dict.fromkeys(list(ALIGNMENT)[:4], 1)
DIGITS |= dict.fromkeys(FILLING, 1) | {"filled_text_wer": 2}
DIGITS |= dict.fromkeys(BOUNDS, 3) | {"bound_nats_per_sequence": 1}
BEST = "*"  # after a set's lowest word error rate
LEGEND = f"{BEST} lowest WER of the set"


def shown(metric: str, value: float) -> str:
    """A value as all tables have it."""
    digits = 4 if metric.startswith(RTF) else DIGITS.get(metric)
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


# What each column says, for those who see a table without the code.
MEANINGS = {
    "wer": "word error rate: words put in, left out and taken for others, in percent of the words "
    "of the reference; spelling counts, with case and punctuation",
    "cer": "character error rate: the same for characters, spaces not counted",
    RTF: "real-time factor: seconds that encoder and search take for a second of audio, by the "
    "clock, where so many utterances are decoded at once",
    "word_start_delay_ms": "mean of aligned start minus true start of a word; late is positive",
    "word_end_delay_ms": "the same for ends",
    "word_boundary_error_ms": "mean distance of aligned starts and ends of words from the true",
    "word_boundary_within_50ms": "share of these starts and ends that are at most 50 ms off",
    "masked_words_right": "of the words that were masked in a text, how many are found again from "
    "the audio and the words that are given: by CTC and the decoder",
    "masked_words_right_ctc": "the same by CTC and the words that are given, without the decoder",
    "masked_words_right_ctc_without_text": "the same by CTC's greedy search, "
    "which is given nothing",
    "masked_words_right_text_only": "the same by the decoder without audio; it is told how many "
    "tokens each word has",
    "masked_words_right_unigram": "the same by saying the commonest word each time",
    "filled_text_wer": "word error rate of the text with all that was given and filled in",
    "bound_nats_per_sequence": "a lower bound on the log-likelihood (exact without latents): the "
    "mean over sequences, in nats, of densities in the units of the data",
    "bound_nats_per_step": "the same over all steps",
    "bound_bits_per_dim": "the same over all values of all steps, in bits",
    "kl_nats_per_step": "what the latents say: Kullback-Leibler divergence of posterior from prior",
    "importance_weighted_gain_nats": "by how much the importance-weighted bound of some sequences "
    "is higher than theirs above, nats a sequence",
    "blank_fraction": "share of the encoder's frames that have no label on the aligned path",
}


def read_records(path: Path) -> list[Record]:
    """The records of a results.json, or of a metrics.json.

    Raises:
        UserError: no such file, or something else than records.
    """
    records = read_json(path)
    if not isinstance(records, list) or not all(map(_is_record, records)):
        raise UserError(
            f"{path}: not a list of records with set, method, metric and value; make it again"
        )
    return records


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or not is_number(value.get("value")):
        return False
    return all(isinstance(value.get(name), str) for name in ("set", "method", "metric"))


def is_number(value: Any) -> bool:
    """Whether it is a finite number; true and false are none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max


def make_records(set_name: str, method: str, **metrics: float) -> list[Record]:
    """The metrics of a set and method as records.

    What is not finite (the WER of words where the reference has none) has no record: JSON has no
    such number.
    """
    return [
        Record(set=set_name, method=method, metric=metric, value=value)
        for metric, value in metrics.items()
        if math.isfinite(value)
    ]


def format_tables(records: Sequence[Record]) -> str:
    """The tables of `table_rows` as text, with the legend where a word error rate is marked."""
    return "\n\n".join(map(_as_text, table_rows(records)))


def is_marked(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table has the mark that `LEGEND` explains."""
    return any(cell.endswith(BEST) for row in rows for cell in row)


def table_rows(records: Sequence[Record]) -> list[list[list[str]]]:
    """Tables of recognition, alignments, filled holes and bounds; a line per set and method.

    Returns:
        those that have values: a list of rows of cells, headings first; the first two
        columns are set and method. `BEST` follows the lowest word error rates of a set, where it is
        decoded by more than one method.
    """
    rtfs = dict.fromkeys(r["metric"] for r in records if r["metric"].startswith(RTF))
    recognition = RECOGNITION | {name: name.replace(RTF, RTF_HEADING) for name in rtfs}
    tables = (_rows(records, headings) for headings in (recognition, ALIGNMENT, FILLING, BOUNDS))
    return list(filter(None, tables))


def meanings(headings: Sequence[str]) -> dict[str, str]:
    """What the columns of a table say, by heading; set and method need no word."""
    named = {
        heading: MEANINGS[name]
        for name, heading in (RECOGNITION | ALIGNMENT | FILLING | BOUNDS).items()
    }
    found = {heading: named[heading] for heading in headings if heading in named}
    rtfs = [heading for heading in headings if heading.startswith(RTF_HEADING)]
    return found | ({f"{RTF_HEADING}…": MEANINGS[RTF]} if rtfs else {})


def _rows(records: Sequence[Record], headings: Mapping[str, str]) -> list[list[str]]:
    """One of them, with the columns that have values; empty where there is no such metric."""
    there = {r["metric"] for r in records}
    headings = {metric: heading for metric, heading in headings.items() if metric in there}
    values = {
        (r["set"], r["method"], r["metric"]): r["value"] for r in records if r["metric"] in headings
    }
    if not values:
        return []
    rows = [["set", "method", *headings.values()]]
    for key in dict.fromkeys((set_name, method) for set_name, method, _ in values):
        found = [values.get((*key, metric)) for metric in headings]
        cells = zip(headings, found, strict=True)
        rows.append([*key, *("" if v is None else shown(metric, v) for metric, v in cells)])
    if "wer" in headings:
        _mark_best(rows[1:])
    return rows


def _mark_best(rows: Sequence[list[str]]) -> None:
    for set_name in {row[0] for row in rows}:
        of_set = [row for row in rows if row[0] == set_name and row[2]]
        lowest = min((float(row[2]) for row in of_set), default=None)
        for row in of_set:
            if len(of_set) > 1 and float(row[2]) == lowest:
                row[2] += BEST


def _as_text(rows: Sequence[Sequence[str]]) -> str:
    marked = is_marked(rows)
    if marked:  # digits stand below digits
        rows = [
            [*row[:2], row[2] if row[2].endswith(BEST) else f"{row[2]} ", *row[3:]] for row in rows
        ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, LEGEND] if marked else lines)
