"""Stage 8: gather an experiment's figures into results.json and print them as tables."""

from pathlib import Path

from plateau.config import UserError, cli
from plateau.io import write_json
from plateau.report.facts import read_epochs
from plateau.results import format_tables, make_records, read_records
from plateau.training.experiment import Experiment


def main(exp_dir: Path) -> None:
    """Write results.json and print it.

    Args:
        exp_dir: the experiment's folder, decoded
    """
    records = [r for path in sorted(exp_dir.glob("*/metrics.json")) for r in read_records(path)]
    if not records:
        raise UserError(f"{exp_dir}: nothing is decoded yet; run {Experiment(exp_dir).command}")
    epochs = read_epochs(exp_dir)
    seconds = epochs[-1]["train_seconds"]
    records += make_records("train", exp_dir.parent.name, train_seconds=seconds)
    write_json(exp_dir / "results.json", records)
    print(f"{exp_dir}: {len(epochs)} epochs in {seconds / 60:.1f} min")
    print(format_tables(records))


if __name__ == "__main__":
    cli(main)
