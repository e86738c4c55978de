"""The models of the study are what their names say, of equal sizes; its table has a line each."""

import pytest

from plateau.models.vrnn import Vrnn
from tests.study import make_study, options_of, rows_of


@pytest.fixture
def study(tmp_path):
    """A function that runs the study where nothing is trained."""
    record = {"set": "test", "method": "bound", "metric": "kl_nats_per_step", "value": 0.25}
    return make_study(tmp_path, "vrnn/study.sh", record)


@pytest.mark.parametrize(("corpus", "dim", "number"), [("strokes", 3, 7), ("espeak", 200, 6)])
def test_all_models_have_as_many_parameters(study, tmp_path, corpus, dim, number):
    done = study("--corpus", corpus, "--seeds", "1 2")
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert len(rows) == number
    assert all("(median of 2 seeds, min to max) |" in row for row in rows)
    assert all(row.endswith("| 0.250 (0.250 to 0.250) | 7 (7 to 7) |") for row in rows)

    sizes = {}
    for folder in sorted((tmp_path / f"exp/{corpus}/vrnn").glob("*-seed2")):
        options = options_of(folder)
        assert options.training.seed == 2
        name = folder.name.removeprefix("study-").removesuffix("-seed2")
        model, output = options.vrnn, options.vrnn.output
        assert name.startswith(f"{model.kind}_") or name == model.kind
        assert ("_ar" in name) == output.autoregressive
        assert ("gmm" in name) == (output.components > 1 and output.kind != "gaussian")
        sizes[name] = sum(p.numel() for p in Vrnn(dim, model).parameters())
    middle = (max(sizes.values()) + min(sizes.values())) / 2
    assert all(abs(size / middle - 1) <= 0.05 for size in sizes.values()), sizes


def test_mistakes_are_said_in_a_line(study):
    done = study("--models", "rnn_gauss hmm")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "study.sh: --models has no 'hmm'\n"
    done = study("--seeds", " ")
    assert done.returncode == 1
    assert done.stderr == "study.sh: --models and --seeds name no experiment\n"
