"""Check a corpus of sequences, strokes, images or frames, and compute its statistics."""

import sys
from collections import Counter
from pathlib import Path

from plateau.config import cli
from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import SequenceSet, write_statistics


def main(data_dir: Path) -> None:
    """Check all values; write statistics.json if they are valid.

    The first fault of each kind is a line on stderr, and the exit status then 1.

    Args:
        data_dir: the corpus's folder, with about.json
    """
    counts: Counter[str] = Counter()
    first = {}
    for fault in check_corpus(data_dir):
        counts[fault.kind] += 1
        first.setdefault(fault.kind, fault)
    for kind, fault in first.items():
        more = f" ({counts[kind]} such)" if counts[kind] > 1 else ""
        print(f"{fault}{more}", file=sys.stderr)
    if counts:
        sys.exit(f"{data_dir}: {counts.total()} faults")
    write_statistics(data_dir)
    for path in sorted(data_dir.glob("*/sequences.jsonl")):
        sequences = SequenceSet(path.parent)
        steps = sum(sequences.lengths)
        print(f"{path.parent}: valid: {len(sequences)} sequences, {steps} steps")


if __name__ == "__main__":
    cli(main)
