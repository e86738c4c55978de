import json

import pytest

from plateau.config import UserError
from plateau.io import read_json, write_json, write_text
from plateau.results import make_records


@pytest.fixture
def exp_dir(tmp_path):
    """An experiment that was trained for two epochs and decoded."""
    exp_dir = tmp_path / "exp" / "toy" / "conformer_ctc" / "x"
    epochs = [{"epoch": n, "step": 7 * n, "train_seconds": 30.5 * n} for n in (1, 2)]
    write_text(exp_dir / "log/epochs.jsonl", "".join(json.dumps(e) + "\n" for e in epochs))
    for set_name, wer in (("test", 12.5), ("dev", 3.25)):
        records = make_records(set_name, "greedy", wer=wer, cer=1.0, rtf_batch_1=0.01)
        write_json(exp_dir / f"decode_{set_name}_greedy" / "metrics.json", records)
    return exp_dir


def test_it_gathers_all_metrics_and_ends_with_the_table(load_script, exp_dir, capsys):
    load_script("results").main(exp_dir)
    records = read_json(exp_dir / "results.json")
    assert {"set": "test", "method": "greedy", "metric": "wer", "value": 12.5} in records
    assert {"set": "dev", "method": "greedy", "metric": "wer", "value": 3.25} in records
    assert records[-1] == {
        "set": "train",
        "method": "conformer_ctc",
        "metric": "train_seconds",
        "value": 61.0,
    }
    assert len(records) == 7
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{exp_dir}: 2 epochs in 1.0 min"
    assert lines[1].split() == ["set", "method", "WER", "%", "CER", "%", "RTF", "batch", "1"]
    assert [line.split()[:3] for line in lines[2:]] == [
        ["dev", "greedy", "3.25"],
        ["test", "greedy", "12.50"],
    ]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("decode_*/metrics.json", "nothing is decoded yet; run the same ./run.sh again"),
        ("log/epochs.jsonl", "no epoch is trained; run the same ./run.sh again"),
    ],
)
def test_what_is_missing_is_named(load_script, exp_dir, missing, message):
    for path in exp_dir.glob(missing):
        path.unlink()
    with pytest.raises(UserError, match=message):
        load_script("results").main(exp_dir)
    assert not (exp_dir / "results.json").exists()
