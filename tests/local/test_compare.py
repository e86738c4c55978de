import pytest

from plateau.config import UserError
from plateau.io import write_json
from plateau.results import make_records


@pytest.fixture
def experiments(tmp_path):
    """Four seeds of one experiment, one of which lacks a figure, and another."""
    wers = {"x": 3.0, "x,training.seed=2": 9.0, "x-seed3": 5.0, "x-seed10": 4.0, "y": 2.0}
    for name, wer in wers.items():
        records = make_records("test", "greedy", wer=wer + 1)
        if name != "x-seed3":
            records += make_records("test", "beam", cer=wer / 2)
        records += make_records("train", "conformer_ctc", train_seconds=10 * wer)
        write_json(tmp_path / name / "results.json", records)
    return [tmp_path / name for name in wers]


def rows(capsys) -> list[list[str]]:
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_seeds_share_a_line_with_their_medians_and_ranges(load_script, experiments, capsys):
    columns = "train_seconds,test/greedy:wer,test:cer,test:rtf"
    load_script("compare").main(experiments, columns)
    heading, _, x, y = rows(capsys)
    assert heading == ["experiment", *columns.split(",")]
    assert x == [
        f"{experiments[0]} (median of 4 seeds, min to max)",
        "45 (30 to 90)",
        "5.50 (4.00 to 10.00)",
        "2.00 (1.50 to 4.50, of 3)",
        "",
    ]
    assert y == [str(experiments[4]), "20", "3.00", "1.00", ""]


def test_the_smallest_of_several_methods_is_taken(load_script, experiments, capsys):
    records = make_records("test", "greedy", wer=4.5) + make_records("test", "beam", wer=3.5)
    write_json(experiments[4] / "results.json", records)
    load_script("compare").main(experiments[4:], "test:wer,test/greedy:wer")
    assert rows(capsys)[2][1:] == ["3.50", "4.50"]


def test_bounds_below_zero_have_the_lower_first(load_script, tmp_path, capsys):
    for seed, bound in ((1, -1.25), (2, -1.5)):
        folder = tmp_path / f"study-rnn-seed{seed}"
        write_json(
            folder / "results.json", make_records("test", "bound", bound_nats_per_step=bound)
        )
    load_script("compare").main(sorted(tmp_path.iterdir()), "test:bound_nats_per_step")
    assert rows(capsys)[2][1] == "-1.375 (-1.500 to -1.250)"


def test_each_seed_has_a_line_if_asked_for(load_script, experiments, capsys):
    load_script("compare").main(experiments, "test:wer", seeds=True)
    assert [row[1] for row in rows(capsys)[2:]] == ["4.00", "10.00", "6.00", "5.00", "3.00"]


def test_mistakes_are_named(load_script, experiments, tmp_path):
    with pytest.raises(UserError, match="'test:' names no metric"):
        load_script("compare").main(experiments, "test:")
    with pytest.raises(
        UserError, match=r"nowhere/results.json: not there; run the same ./run.sh again"
    ):
        load_script("compare").main([tmp_path / "nowhere"])
