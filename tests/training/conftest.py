import pytest
from lhotse import CutSet

from tests.training.toy import make_cut_set


@pytest.fixture(scope="session")
def cuts(tmp_path_factory) -> CutSet:
    """Twelve utterances of tones with their features."""
    return make_cut_set(tmp_path_factory.mktemp("toy"))
