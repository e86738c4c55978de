"""Load the scripts of egs/, which is not a package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EGS = Path(__file__).parents[2] / "egs"


def load_prepare(corpus: str) -> ModuleType:
    """Import egs/<corpus>/prepare.py under a name of its own."""
    name = f"prepare_{corpus}"
    spec = importlib.util.spec_from_file_location(name, EGS / corpus / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def yesno() -> ModuleType:
    return load_prepare("yesno")


@pytest.fixture(scope="session")
def fsdd() -> ModuleType:
    return load_prepare("fsdd")


@pytest.fixture(scope="session")
def mboshi() -> ModuleType:
    return load_prepare("mboshi")


@pytest.fixture(scope="session")
def strokes() -> ModuleType:
    sys.path.append(str(EGS / "strokes"))
    return load_prepare("strokes")


@pytest.fixture(scope="session")
def omniglot() -> ModuleType:
    return load_prepare("omniglot")


@pytest.fixture(scope="session")
def iam_ondb() -> ModuleType:
    return load_prepare("iam_ondb")


@pytest.fixture(scope="session")
def digits() -> ModuleType:
    return load_prepare("digits")


@pytest.fixture(scope="session")
def mnist() -> ModuleType:
    return load_prepare("mnist")


@pytest.fixture(scope="session")
def espeak() -> ModuleType:
    # its processes look for modules beside prepare.py as well, so the path stays
    sys.path.append(str(EGS / "espeak"))
    return load_prepare("espeak")
