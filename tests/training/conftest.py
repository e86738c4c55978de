from pathlib import Path

import pytest
from lhotse import CutSet

from tests.training.toy import make_cut_set, make_trainer


@pytest.fixture(scope="session")
def cuts(tmp_path_factory) -> CutSet:
    """Twelve utterances of tones with their features."""
    return make_cut_set(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def undisturbed(cuts, tmp_path_factory) -> Path:
    """The folder of a run of the toy that nothing happened to."""
    exp_dir = tmp_path_factory.mktemp("undisturbed")
    make_trainer(cuts, exp_dir).run()
    return exp_dir
