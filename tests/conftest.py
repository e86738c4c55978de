import os
from pathlib import Path

import hypothesis
import pytest
import torch

# The same examples each time: what is green stays green until the code changes.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

# Scripts that tests start find the library as they do after path.sh.
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Threads only get in each other's way in models this small."""
    torch.set_num_threads(1)
