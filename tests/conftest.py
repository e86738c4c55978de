import os
from pathlib import Path

import pytest
import torch

# Scripts that tests start find the library as they do after path.sh.
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Threads only get in each other's way in models this small."""
    torch.set_num_threads(1)
