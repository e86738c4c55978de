"""The doctor as a program: bad packages do not hurt it, a bare old Python is enough for it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TORCH = """
class version:
    cuda = "11.7"
class cuda:
    get_arch_list = staticmethod(lambda: [])
"""


def doctor(python: str) -> subprocess.CompletedProcess:
    # -S: the doctor itself has nothing but the standard library.
    command = [sys.executable, "-S", str(ROOT / "local/doctor.py"), python]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def environment(tmp_path):
    """An interpreter that sees only made-up packages; returns it and a function that adds one."""
    site = tmp_path / "site"

    def add(name: str, version: str, code: str) -> None:
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (site / f"{name}-{version}.dist-info/METADATA").write_text(metadata)
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(code)

    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return str(python), add, site


def test_a_package_that_crashes_or_fails_is_one_line(environment):
    python, add, _ = environment
    add("torch", "1.13.1", TORCH)
    add("k2", "1.23.4", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    add("lhotse", "1.31.1", "raise OSError('libfoo.so.1: cannot open shared object file')\n")
    result = doctor(python)
    assert result.returncode == 1
    assert "import of k2 fails: SIGSEGV -> " in result.stdout
    assert "import of lhotse fails: OSError: libfoo.so.1: cannot open" in result.stdout
    assert "torch            1.13.1, CUDA 11.7" in result.stdout
    assert result.stderr == ""


def test_what_k2_was_built_for_is_found_without_importing_it(environment):
    python, add, site = environment
    add("torch", "1.13.1", TORCH)
    add("k2", "1.23.4", "import _k2\n")
    (site / "k2/torch_version.py").write_text('k2_torch_version = "1.12.1+cu113"\n')
    (site / "_k2.cpython-38-x86_64-linux-gnu.so").touch()
    output = doctor(python).stdout
    assert "1.23.4, for torch 1.12.1+cu113 and Python 38" in output
    assert "k2 is the wheel for Python 3.8" in output


def test_no_environment_yet():
    result = doctor("/nonexistent/python")
    assert result.returncode == 1
    assert "no environment" in result.stdout
    assert ". ./path.sh" in result.stdout


@pytest.mark.parametrize("name", ["local/doctor.py", "plateau/environment.py"])
def test_python_3_8_can_read_it(name):
    ast.parse((ROOT / name).read_text(), feature_version=(3, 8))
