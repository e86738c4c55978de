"""`results.json`: a list of records {"set", "method", "metric", "value"}, and its table."""

from collections.abc import Sequence
from typing import TypedDict


class Record(TypedDict):
    """One figure of an experiment; the unit is in the metric's name where there is one."""

    set: str
    method: str
    metric: str
    value: float


# What the table shows, in this order: metric, heading.
COLUMNS = {"wer": "WER %", "cer": "CER %", "rtf": "RTF"}


def make_records(set_name: str, method: str, **metrics: float) -> list[Record]:
    """The metrics of a set and method as records."""
    return [
        Record(set=set_name, method=method, metric=metric, value=value)
        for metric, value in metrics.items()
    ]


def format_table(records: Sequence[Record]) -> str:
    """A table with a line per set and method, for those with a metric of `COLUMNS`."""
    shown = [r for r in records if r["metric"] in COLUMNS]
    values = {(r["set"], r["method"], r["metric"]): r["value"] for r in shown}
    lines = dict.fromkeys((r["set"], r["method"]) for r in shown)
    rows = [["set", "method", *COLUMNS.values()]]
    for key in lines:
        found = [values.get((*key, metric)) for metric in COLUMNS]
        rows.append([*key, *("" if v is None else f"{v:.4g}" for v in found)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
