import re
import shlex

import numpy as np
import pytest

from plateau.data.sequences import About, Sequence, read_statistics, write_corpus
from plateau.errors import UserError
from tests.job import run


@pytest.fixture
def check(load_script):
    return load_script("check_sequences").main


def test_all_kinds_of_faults_are_counted_and_the_first_of_each_is_named(check, tmp_path, capsys):
    drawings = {
        "good": [[1, 2, 0], [2, 1, 1]],
        "stuck": [[1, 2, 0], [0, 0, 1]],
        "open": [[1, 2, 0]],
        "stuck again": [[0, 0, 0], [0, 0, 1]],
        "broken": [[np.nan, 2, 0]],
    }
    sequences = [Sequence(id, np.array(values)) for id, values in drawings.items()]
    write_corpus(tmp_path, About("strokes", ("dx", "dy", "pen")), {"train": sequences})
    with pytest.raises(SystemExit) as end:
        check(tmp_path)
    assert end.value.code == f"{tmp_path}: 4 faults"
    path = tmp_path / "train" / "sequences.jsonl"
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:2: stuck: repeated points: 1 of 2 steps have no length, the first is 2 (2 such)",
        f"{path}:3: open: no pen lift at the end: it is never lifted",
        f"{path}:5: broken: not finite: value 1 of step 1 is nan",
    ]


def test_a_valid_corpus_is_said_to_be(check, tmp_path, capsys):
    image = Sequence("a", np.array([[0, 1, 0, 0.5]]))
    write_corpus(tmp_path, About("images", shape=(2, 2)), {"train": [image], "test": [image]})
    check(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/{name}: valid: 1 sequences, 1 steps" for name in ("test", "train")
    ]


def test_statistics_that_are_not_there_can_be_made_as_the_message_says(tmp_path):
    folder = tmp_path / "my strokes"
    drawing = Sequence("a", np.array([[1, 2, 0], [3, 1, 1]]))
    write_corpus(folder, About("strokes", ("dx", "dy", "pen")), {"train": [drawing]})
    with pytest.raises(UserError) as error:
        read_statistics(folder)
    run(*shlex.split(re.search("make it with python (.*)", str(error.value))[1]))
    mean, std = read_statistics(folder)
    assert (mean.tolist(), std.tolist()) == ([2, 1.5, 0], [1, 0.5, 1])
