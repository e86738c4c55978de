"""On jobs whose decoders take no time, and give what they are asked for."""

from types import SimpleNamespace

import pytest
import torch

from bench import decoding
from bench.decoding import Job, main
from plateau.config import UserError
from plateau.data.loading import Batch


def make_job(exp_dir, calls):
    batch = Batch(torch.zeros(4, 20, 2), torch.tensor([20, 18, 9, 8]), ["a"] * 4, list("1234"), 0.5)

    def encode(features, lengths):
        calls.append(len(features))
        return features, lengths

    def search(encoded, lengths):
        return [[SimpleNamespace(tokens=())] for _ in lengths]

    return Job(exp_dir, encode, {"greedy": search, "beam": search}, [batch])


def test_each_method_and_size_has_its_figure(tmp_path, monkeypatch, capsys):
    calls = []
    decode_dir = tmp_path / "a" / "decode_test_greedy"
    decode_dir.mkdir(parents=True)
    record = '[{"set": "test", "method": "greedy", "metric": "wer", "value": 1.5}]'
    (decode_dir / "metrics.json").write_text(record)
    monkeypatch.setattr(decoding, "load", lambda exp_dir, *_: make_job(exp_dir, calls))
    main([tmp_path / "a", tmp_path / "b"], "test", 4, (2, 1), repetitions=2)
    # Twice two utterances, and four times one; before that once the largest of each experiment.
    assert calls == [2, 2] * 2 + ([2, 2, 1, 1, 1, 1] * 2) * 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "| experiment | method | WER % of test | RTF batch 2 | RTF batch 1 |"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[3:]]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (str(tmp_path / "a"), "greedy", "1.50"),
        (str(tmp_path / "a"), "beam", ""),
        (str(tmp_path / "b"), "greedy", ""),
        (str(tmp_path / "b"), "beam", ""),
    ]
    assert all(float(cell) >= 0 for row in rows for cell in row[3:])


def test_numbers_below_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="each must be at least 1"):
        main([tmp_path], repetitions=0)
