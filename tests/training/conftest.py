import pytest
import torch
from lhotse import CutSet

from tests.training.toy import make_cut_set


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Threads only get in each other's way in models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cuts(tmp_path_factory) -> CutSet:
    """Twelve utterances of tones with their features."""
    return make_cut_set(tmp_path_factory.mktemp("toy"))
