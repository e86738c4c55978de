import pytest
import torch

from plateau import config
from plateau.config import UserError
from plateau.graphs import engines
from plateau.graphs.ctc import ctc_graphs
from plateau.graphs.dense import best_paths, full_sum_loss
from plateau.graphs.engines import GraphOptions, engine_for, engine_name, use_engine
from plateau.training.experiment import Experiment, SpeechOptions


@pytest.fixture
def installed(monkeypatch):
    """The packages that are there; `find_spec` finds these alone."""
    packages = {"numba", "k2"}
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in packages else None)
    yield packages
    use_engine(GraphOptions())


@pytest.mark.parametrize(
    ("there", "on_cpu", "on_gpu"),
    [
        ({"numba", "k2"}, "native", "k2"),
        ({"numba"}, "native", "native"),
        ({"k2"}, "k2", "k2"),
    ],
)
def test_auto_takes_what_is_installed(installed, there, on_cpu, on_gpu):
    installed &= there
    assert engine_name("cpu") == on_cpu and engine_name(torch.device("cuda", 0)) == on_gpu


def test_what_is_chosen_is_taken(installed):
    for name in ("native", "k2"):
        use_engine(GraphOptions(engine=name))
        assert engine_name("cpu") == engine_name("cuda") == name
        pytest.importorskip({"native": "numba"}.get(name, name))
        assert engine_for("cpu").__name__ == f"plateau.graphs.engines.{name}"


def test_what_is_not_installed(installed):
    installed.clear()
    with pytest.raises(UserError, match="neither is installed"):
        engine_name("cpu")
    for name in ("native", "k2"):
        with pytest.raises(UserError, match=f"graphs.engine={name}: .* is not installed"):
            use_engine(GraphOptions(engine=name))
    with pytest.raises(UserError, match="engine"):
        GraphOptions(engine="openfst")


def test_an_experiment_says_which_engine(installed, tmp_path):
    config.save(SpeechOptions(graphs=GraphOptions(engine="k2")), tmp_path / "config.yaml")
    Experiment(tmp_path).options(SpeechOptions)
    assert engine_name("cpu") == "k2"


@pytest.mark.usefixtures("engine")
def test_arguments_that_do_not_fit():
    graphs, scores = ctc_graphs([[1], [2]]), torch.zeros(2, 4, 3)
    for loss in (full_sum_loss, best_paths):
        with pytest.raises(ValueError, match="labels must be below 2, got 2"):
            loss(scores[:, :, :2], torch.tensor([4, 4]), graphs)
        with pytest.raises(ValueError, match=r"lengths must be in 1\.\.4"):
            loss(scores, torch.tensor([4, 5]), graphs)
        with pytest.raises(ValueError, match="1 utterances, 2 graphs"):
            loss(scores[:1], torch.tensor([4]), graphs)
