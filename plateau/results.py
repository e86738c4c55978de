"""`results.json`: a list of records {"set", "method", "metric", "value"}, and its table."""

from collections.abc import Sequence
from typing import TypedDict


class Record(TypedDict):
    """One figure of an experiment; the unit is in the metric's name where there is one."""

    set: str
    method: str
    metric: str
    value: float


# What the table shows, in this order: metric, heading; then real-time factors.
HEADINGS = {"wer": "WER %", "cer": "CER %"}
RTF = "rtf_batch_"  # and a batch size: the name of a real-time factor


def make_records(set_name: str, method: str, **metrics: float) -> list[Record]:
    """The metrics of a set and method as records."""
    return [
        Record(set=set_name, method=method, metric=metric, value=value)
        for metric, value in metrics.items()
    ]


def format_table(records: Sequence[Record]) -> str:
    """A table with a line per set and method, for those with error rates or real-time factors."""
    rtfs = dict.fromkeys(r["metric"] for r in records if r["metric"].startswith(RTF))
    headings = HEADINGS | {metric: metric.replace(RTF, "RTF batch ") for metric in rtfs}
    shown = [r for r in records if r["metric"] in headings]
    values = {(r["set"], r["method"], r["metric"]): r["value"] for r in shown}
    lines = dict.fromkeys((r["set"], r["method"]) for r in shown)
    rows = [["set", "method", *headings.values()]]
    for key in lines:
        found = [values.get((*key, metric)) for metric in headings]
        rows.append([*key, *("" if v is None else f"{v:.4g}" for v in found)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
