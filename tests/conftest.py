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


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=2500, help="inputs for the readers, all together")


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", ())
    counts = [n for report in passed for name, n in report.user_properties if name == "fuzzed"]
    if counts:
        terminalreporter.write_line(f"{sum(counts)} inputs for {len(counts)} readers")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Threads only get in each other's way in models this small."""
    torch.set_num_threads(1)
