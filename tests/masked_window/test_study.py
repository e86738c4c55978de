"""Each change of the study is of options that there are, and its table has a line each."""

import pytest

from masked_window.options import Options
from plateau.config import load
from tests.study import ROOT, make_study, options_of, rows_of


@pytest.fixture
def study(tmp_path):
    """A function that runs the study where nothing is trained."""
    record = {"set": "test", "method": "window", "metric": "masked_words_right", "value": 61.2}
    return make_study(tmp_path, "masked_window/study.sh", record)


def test_each_change_is_another_model_or_training(study, tmp_path):
    done = study("--seeds", "2", "--", "training.epochs=3")
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert all(row.endswith("| 61.2 | 7 |") for row in rows)

    folder = tmp_path / "exp/espeak/masked_window"
    options = {
        path.name.removeprefix("study-").removesuffix("-seed2"): options_of(path)
        for path in folder.glob("*-seed2")
    }
    assert len(options) == len(set(map(repr, options.values()))) == len(rows) > 20
    assert {(own.training.seed, own.training.epochs) for own in options.values()} == {(2, 3)}
    default = load(Options, ROOT / "masked_window/conf/default.yaml").window
    assert options["default"].window == default
    for name in ("stride3", "stride12"):
        assert options[name].window.feature_frames == default.feature_frames
    words = options["words4"].window
    assert words.feature_frames / words.words == default.feature_frames / default.words


def test_mistakes_are_said_in_a_line(study):
    done = study("--changes", "dropout0 depth")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "study.sh: --changes has no 'depth'\n"
    done = study("--seeds", " ")
    assert done.returncode == 1
    assert done.stderr == "study.sh: --changes and --seeds name no experiment\n"
