"""The doctor as a program: bad packages do not hurt it, a bare old Python is enough for it."""

import ast
import os
import re
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


def doctor(python: str, **environment: str) -> subprocess.CompletedProcess:
    # -S: the doctor itself has nothing but the standard library.
    command = [sys.executable, "-S", str(ROOT / "local/doctor.py"), python]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables)


@pytest.fixture
def environment(tmp_path):
    """An interpreter that sees only made-up packages; returns it and a function that adds one."""
    root = tmp_path / "env"
    site = root / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    def add(name: str, version: str, code: str) -> None:
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (site / f"{name}-{version}.dist-info/METADATA").write_text(metadata)
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(code)

    site.mkdir(parents=True)
    base = Path(sys.base_prefix, "bin").resolve()
    (root / "pyvenv.cfg").write_text(f"home = {base}\n")
    python = root / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(base / site.parent.name)
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
    assert "torch              1.13.1, CUDA 11.7" in result.stdout
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


def healthy(add) -> None:
    for name in ("torch", "k2", "lhotse"):
        add(name, "1", TORCH if name == "torch" else "")


def test_another_k2_on_pythonpath_is_named_and_the_command_helps(environment, tmp_path):
    python, add, _ = environment
    healthy(add)
    (tmp_path / "foreign" / "k2").mkdir(parents=True)
    (tmp_path / "foreign/k2/__init__.py").write_text("raise ImportError('no k2 for this torch')\n")
    there = {"PYTHONPATH": f"{ROOT}:{tmp_path}/foreign"}
    output = doctor(python, **there).stdout
    (line,) = [line for line in output.splitlines() if "k2 comes from" in line]
    assert line.startswith(f"WRONG  k2 comes from {tmp_path}/foreign/k2/__init__.py")
    assert "ImportError: no k2 for this torch" in line
    # ". ./path.sh" then has an environment to enter; here there is none.
    mend = line.split(" -> ")[1]
    assert mend == "unset PYTHONPATH; . ./path.sh"
    script = f"{mend.split(';')[0]}; {python} -c 'import k2'"
    variables = {**os.environ, **there}
    assert subprocess.run(["sh", "-c", script], env=variables).returncode == 0
    assert "k2 comes from" not in doctor(python).stdout


def test_packages_of_the_user_that_are_taken_are_named_and_the_command_helps(environment, tmp_path):
    python, add, _ = environment
    healthy(add)
    (tmp_path / "env/pyvenv.cfg").open("a").write("include-system-site-packages = true\n")
    site = tmp_path / f"home/.local/lib/{(tmp_path / 'env/lib').iterdir().__next__().name}"
    (site / "site-packages/soundfile").mkdir(parents=True)
    (site / "site-packages/soundfile/__init__.py").write_text("raise OSError('no libsndfile')\n")
    home = {"HOME": str(tmp_path / "home")}
    output = doctor(python, **home).stdout
    (line,) = [line for line in output.splitlines() if "soundfile comes from" in line]
    assert line.endswith(" -> export PYTHONNOUSERSITE=1")
    assert "soundfile comes from" not in doctor(python, **home, PYTHONNOUSERSITE="1").stdout


def test_settings_of_pip_are_named_and_the_command_helps(tmp_path):
    """By the pip that is here, with a configuration of its own."""
    variables = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "HOME": str(tmp_path)}
    (tmp_path / "pip.conf").write_text("[global]\ntarget = /elsewhere\n")
    output = doctor(sys.executable, HOME=str(tmp_path), PIP_TARGET="/elsewhere").stdout
    assert "pip's setting target: it sends packages elsewhere" in output
    assert " -> unset PIP_TARGET\n" in output
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / "pip.conf").rename(tmp_path / ".config/pip/pip.conf")
    variables = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    (mend,) = re.findall(
        r"pip's setting target.* -> (.*)", doctor(sys.executable, **variables).stdout
    )
    subprocess.run(mend, shell=True, check=True, env={**os.environ, **variables})
    assert "pip's setting" not in doctor(sys.executable, **variables).stdout


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "LD_LIBRARY_PATH"])
def test_another_libtorch_is_named(environment, tmp_path, variable):
    python, add, _ = environment
    healthy(add)
    (tmp_path / "libtorch_cpu.so").touch()
    value = str(tmp_path / "libtorch_cpu.so" if variable == "LD_PRELOAD" else tmp_path)
    line = f"note   {tmp_path}/libtorch_cpu.so: {variable} puts it before the environment's"
    assert f"{line} -> unset {variable}\n" in doctor(python, **{variable: value}).stdout


def test_the_mark_tells_the_lock(environment, tmp_path):
    """Of an environment that path.sh did not finish, too."""
    python, add, _ = environment
    (tmp_path / "env/.plateau").write_text("unfinished requirements/current.txt\n")
    output = doctor(python).stdout
    assert "environment        current" in output
    assert "-m pip install -r requirements/current.txt" in output
    add("torch", "1.13.1", TORCH)
    (tmp_path / "env/.plateau").unlink()
    output = doctor(python).stdout
    assert "environment        classic" in output
    assert "-m pip install -r requirements/classic.txt" in output


def test_no_environment_yet():
    result = doctor("/nonexistent/python")
    assert result.returncode == 1
    assert "no environment" in result.stdout
    assert ". ./path.sh" in result.stdout


@pytest.mark.parametrize("name", ["local/doctor.py", "plateau/environment.py"])
def test_python_3_8_can_read_it(name):
    ast.parse((ROOT / name).read_text(), feature_version=(3, 8))
