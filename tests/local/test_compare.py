import pytest

from plateau.config import UserError
from plateau.io import write_json
from plateau.results import make_records


@pytest.fixture
def experiments(tmp_path):
    """Three seeds of one experiment, and another."""
    wers = {"x": 3.0, "x,training.seed=2": 9.0, "x-seed3": 5.0, "y": 2.0}
    for name, wer in wers.items():
        records = make_records("test", "greedy", wer=wer + 1)
        records += make_records("test", "beam", wer=wer)
        records += make_records("train", "conformer_ctc", train_seconds=10 * wer)
        write_json(tmp_path / name / "results.json", records)
    return [tmp_path / name for name in wers]


def rows(capsys) -> list[list[str]]:
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_seeds_share_a_line_with_their_medians(load_script, experiments, capsys):
    columns = "train_seconds,test:wer,test/greedy:wer,test:rtf"
    load_script("compare").main(experiments, columns)
    heading, _, x, y = rows(capsys)
    assert heading == ["experiment", *columns.split(",")]
    assert x == [f"{experiments[0]} (median of 3)", "50", "5", "6", ""]
    assert y == [str(experiments[3]), "20", "2", "3", ""]


def test_each_seed_has_a_line_if_asked_for(load_script, experiments, capsys):
    load_script("compare").main(experiments, "test:wer", seeds=True)
    assert [row[1] for row in rows(capsys)[2:]] == ["3", "9", "5", "2"]


def test_mistakes_are_named(load_script, experiments, tmp_path):
    with pytest.raises(UserError, match="'test:' names no metric"):
        load_script("compare").main(experiments, "test:")
    with pytest.raises(
        UserError, match=r"nowhere/results.json: not there; run the same ./run.sh again"
    ):
        load_script("compare").main([tmp_path / "nowhere"])
