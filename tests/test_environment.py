"""Checks of `plateau.environment`: given facts, the right finding and the command that mends it."""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from plateau.environment import CHECKS, Facts, examine, lock_of, numbers, pins

HEALTHY = Facts(
    glibc="2.36",
    python="3.11.7",
    installed={
        "torch": "1.13.1",
        "k2": "1.23.4",
        "lhotse": "1.31.1",
        "numpy": "1.26.4",
        "kaldifeat": "1.24+torch1.13.1",
        "pip": "26.2.1",
    },
    required={"torch": "1.13.1", "k2": "1.23.4", "lhotse": "1.31.1", "numpy": "1.26.4"},
    k2_python="311",
    k2_torch="1.13.1+cu117",
    kaldifeat_torch="1.13.1+cu117",
    torch_cuda="11.7",
    torch_archs=("sm_37", "sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86"),
    gpus=(("NVIDIA RTX A6000", "8.6"),),
    compiler="g++ 12.2.0",
)


def having(**packages: str | None) -> Facts:
    """Healthy facts with other versions of packages; None: not installed."""
    changed = {name: version for name, version in packages.items() if version is not None}
    kept = {n: v for n, v in HEALTHY.installed.items() if n not in packages}
    return dataclasses.replace(HEALTHY, installed={**kept, **changed})


def but(**facts) -> Facts:
    return dataclasses.replace(HEALTHY, **facts)


def test_nothing_to_say_about_a_healthy_environment():
    assert examine(HEALTHY) == []
    assert examine(but(gpus=(("Tesla V100", "7.0"),))) == []
    # Code for 8.6 runs on 8.9: same major, higher minor.
    assert examine(but(gpus=(("GeForce RTX 4090", "8.9"),))) == []


# facts → the finding's check, whether something is broken, words in what and why, words in mend
CASES = {
    "k2's wheel of another Python": (
        but(k2_python="38", import_errors={"k2": "No module named '_k2'"}),
        "k2_wheel",
        True,
        "wheel for Python 3.8",
        "grep '^k2==' requirements/classic.txt | python -m pip install --force-reinstall --no-deps",
    ),
    "torch was upgraded under k2": (
        but(
            installed={**having(torch="1.13.0").installed},
            import_errors={"k2": "k2 was built using PyTorch 1.13.1"},
            kaldifeat_torch="1.13.0",
        ),
        "k2_torch",
        True,
        "k2 was built for torch 1.13.1+cu117: torch here is 1.13.0",
        "'^torch=='",
    ),
    "k2 of another torch": (
        but(k2_torch="1.12.1"),
        "k2_torch",
        True,
        "built for torch 1.12.1",
        "k2 project's own index",
    ),
    "numpy 2": (having(numpy="2.1.0"), "numpy", True, "compiled against numpy 1", "'^numpy=='"),
    "lhotse for torch 2": (having(lhotse="1.32.0"), "lhotse", True, "samplers", "'^lhotse=='"),
    "torchaudio of another torch": (
        having(torchaudio="0.12.1"),
        "torchaudio",
        True,
        "not the one for torch 1.13.1",
        "pip uninstall -y torchaudio",
    ),
    "package missing": (
        having(lhotse=None),
        "missing",
        True,
        "lhotse",
        "install -r requirements/classic.txt",
    ),
    "pip that refuses k2": (
        but(installed={**having(k2=None).installed, "pip": "26.3"}, k2_python="", k2_torch=""),
        "pip",
        True,
        "pip 26.3",
        "pip install 'pip<26.3'",
    ),
    "Python 3.12": (but(python="3.12.1", k2_python="312"), "python", True, "3.12.1", ". ./path.sh"),
    "PyPy": (but(implementation="pypy"), "python", True, "pypy 3.11.7", ". ./path.sh"),
    "no environment": (Facts(), "python", True, "no environment", ". ./path.sh"),
    "a Mac": (but(machine="Darwin arm64"), "machine", True, "Darwin arm64", "PLATEAU_VENV"),
    "an old system": (but(glibc="2.17"), "machine", True, "glibc 2.17", "container"),
    "a Hopper GPU": (
        but(gpus=(("NVIDIA H100", "9.0"),)),
        "gpu",
        True,
        "NVIDIA H100 has compute capability 9.0",
        "export PLATEAU_ENV=current; . ./path.sh",
    ),
    "a GPU older than the code": (
        but(gpus=(("Tesla K40", "3.5"),)),
        "gpu",
        True,
        "compute capability 3.5",
        "CUDA_VISIBLE_DEVICES=",
    ),
    "a driver that torch cannot use": (
        but(torch_archs=()),
        "gpu",
        False,
        "CUDA 11.7) cannot use it",
        "nvidia-smi",
    ),
    "no kaldifeat": (
        but(installed=having(kaldifeat=None).installed, kaldifeat_torch=""),
        "kaldifeat",
        False,
        "Lhotse's own fbank",
        "python utils/build_kaldifeat.py",
    ),
    "no compiler": (
        but(installed=having(kaldifeat=None).installed, kaldifeat_torch="", compiler=""),
        "kaldifeat",
        False,
        "no kaldifeat",
        "install g++",
    ),
    "no headers": (
        but(installed=having(kaldifeat=None).installed, kaldifeat_torch="", python_headers=False),
        "kaldifeat",
        False,
        "no kaldifeat",
        "python3.11-dev",
    ),
    "kaldifeat of another torch": (
        but(kaldifeat_torch="1.12.1", import_errors={"kaldifeat": "built using PyTorch 1.12.1"}),
        "kaldifeat",
        True,
        "built for torch 1.12.1",
        "python utils/build_kaldifeat.py",
    ),
    "full disk": (but(disk_free_gb=0.2), "disk", True, "0.2 GB free", "PLATEAU_VENV"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_thing_wrong_is_one_line(case):
    facts, check, broken, why, mend = CASES[case]
    findings = examine(facts)
    assert len(findings) == 1, findings
    finding = findings[0]
    by_name = {c.__name__.removeprefix("check_"): c for c in CHECKS}
    assert by_name[check](facts) == finding
    assert finding.broken is broken
    assert why in str(finding)
    assert mend in finding.mend
    assert "\n" not in str(finding)


def test_failed_import_that_nothing_explains_is_told():
    (finding,) = examine(but(import_errors={"k2": "SIGSEGV"}))
    assert str(finding).startswith("WRONG  import of k2 fails: SIGSEGV -> grep '^k2=='")


CURRENT = Facts(
    glibc="2.36",
    python="3.12.1",
    lock="current",
    installed={
        "torch": "2.13.0",
        "triton": "3.7.1",
        "nvidia-cublas": "13.1",
        "lhotse": "1.33.0",
        "numpy": "2.4.6",
        "kaldifeat": "1.24+torch2.13.0",
        "kaldi-native-fbank": "1.23.0",
        "pip": "26.3",
    },
    required={
        "torch": "2.13.0",
        "triton": "3.7.1",
        "nvidia-cublas": "13.1",
        "lhotse": "1.33.0",
        "numpy": "2.4.6",
    },
    kaldifeat_torch="2.13.0",
    torch_cuda="13.0",
    torch_archs=("sm_80", "sm_90", "sm_120"),
    gpus=(("NVIDIA H100", "9.0"),),
    compiler="g++ 12.2.0",
)


def current(without: tuple[str, ...] = (), **facts) -> Facts:
    """Facts of the environment current, less some packages and with other facts."""
    kept = {n: v for n, v in CURRENT.installed.items() if n not in without}
    installed = {**kept, **facts.pop("installed", {})}
    return dataclasses.replace(CURRENT, installed=installed, **facts)


NO_K2 = "note   no k2: transducers' losses need it; everything else works -> with "
NO_K2 += "CPython 3.11: export PLATEAU_ENV=classic; . ./path.sh"


@pytest.mark.parametrize("python", ["3.11.7", "3.12.1", "3.13.0"])
def test_of_current_only_k2_is_noted(python):
    assert [str(finding) for finding in examine(current(python=python))] == [NO_K2]


CURRENT_CASES = {
    "torch without CUDA": (
        current(
            ("triton", "nvidia-cublas"),
            installed={"torch": "2.13.0+cpu"},
            torch_cuda="",
            torch_archs=(),
            gpus=(),
        ),
        [],
    ),
    "torch without CUDA beside a GPU": (
        current(installed={"torch": "2.13.0+cpu"}, torch_cuda="", torch_archs=()),
        [
            "note   NVIDIA H100: torch 2.13.0+cpu (CUDA none) cannot use it -> remove the "
            "environment, and make it where the GPU is: . ./path.sh"
        ],
    ),
    "no compiler": (
        current(("kaldifeat",), kaldifeat_torch="", compiler=""),
        [
            "note   no kaldifeat: features are computed by kaldi-native-fbank, on the CPU -> "
            "install a C++ compiler (on Debian: apt-get install g++); python "
            "utils/build_kaldifeat.py"
        ],
    ),
    "a package is missing": (
        current(("lhotse",)),
        [
            "WRONG  missing: lhotse: requirements/current.txt asks for it -> python -m pip install "
            "-r requirements/current.txt"
        ],
    ),
    "Python 3.10": (
        current(python="3.10.2"),
        [
            "WRONG  cpython 3.10.2: the packages of current are for CPython 3.11 to 3.13 -> unset "
            "PLATEAU_VENV; . ./path.sh"
        ],
    ),
    "another torch 2": (
        current(installed={"torch": "2.9.0"}, kaldifeat_torch="2.9.0"),
        [
            "note   torch 2.9.0: it was tested with torch 2.13.0 -> ./run_tests.sh tells whether "
            "all works here"
        ],
    ),
    "a GPU older than the code": (
        current(gpus=(("Tesla V100", "7.0"),)),
        [
            "WRONG  Tesla V100 has compute capability 7.0: torch 2.13.0 has code only for sm_80 "
            "sm_90 sm_120 -> unset PLATEAU_VENV; export PLATEAU_ENV=classic; . ./path.sh. Or train "
            "on the CPU: export CUDA_VISIBLE_DEVICES="
        ],
    ),
}


@pytest.mark.parametrize("case", CURRENT_CASES)
def test_one_thing_wrong_in_current(case):
    facts, expected = CURRENT_CASES[case]
    assert [str(finding) for finding in examine(facts) if finding.what != "no k2"] == expected


@pytest.mark.parametrize(
    ("mark", "torch", "python", "lock"),
    [
        ("0abc  requirements/current.txt /env", "2.13.0", "3.11.7", "current"),
        ("unfinished requirements/current.txt", "", "3.11.7", "current"),
        ("0abc  requirements/classic.txt /env", "1.13.1", "3.11.7", "classic"),
        ("", "2.6.0+cu124", "3.11.7", "current"),
        ("", "1.13.1", "3.11.7", "classic"),
        ("", "", "3.12.1", "current"),
        ("", "", "3.11.7", "classic"),
        ("", "", "", "classic"),
    ],
)
def test_which_lock_an_environment_is_of(mark, torch, python, lock):
    assert lock_of(mark, torch, python) == lock


def test_pins_of_a_lock_are_those_of_the_python():
    lock = (
        "# without a GPU: torch==2+cpu --hash=sha256:0\n"
        "torch==2 --hash=sha256:0 --hash=sha256:1\n"
        'chunk==3 ; python_version == "3.12" or python_version == "3.13" --hash=sha256:0\n'
    )
    assert pins(lock, "3.13.0") == {"torch": "2", "chunk": "3"}
    assert pins(lock, "3.11.7") == {"torch": "2"}


def test_numbers_compare_as_versions():
    assert numbers("1.13.1+cu117") == numbers("1.13.1") < numbers("1.31")
    assert numbers("") == ()


def wheel(folder: Path, name: str, version: str) -> str:
    """A wheel of an empty package; its hash."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def commands(facts: Facts) -> str:
    (finding,) = examine(dataclasses.replace(facts, executable=sys.executable))
    return finding.mend


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(
    ("case", "installs"),
    [
        ("k2's wheel of another Python", {"k2"}),
        ("torch was upgraded under k2", {"torch"}),
        ("numpy 2", {"numpy"}),
        ("lhotse for torch 2", {"lhotse"}),
        ("package missing", {"torch", "k2", "lhotse", "numpy"}),
        ("pip that refuses k2", {"pip", "torch", "k2", "lhotse", "numpy"}),
    ],
)
def test_commands_of_pip_can_be_run_as_they_are(tmp_path, shell, case, installs):
    """By the pip that is here, which says what it would do; wheels are made up."""
    lines = []
    (tmp_path / "wheels").mkdir()
    (tmp_path / "requirements").mkdir()
    wheel(tmp_path / "wheels", "pip", "26.2.1")
    for name, version in HEALTHY.required.items():
        sha = wheel(tmp_path / "wheels", name, f"{version}")
        lines.append(f"{name}=={version} --hash=sha256:{sha}\n")
    (tmp_path / "requirements/classic.txt").write_text("".join(lines))
    variables = {
        **os.environ,
        "PIP_DRY_RUN": "1",
        "PIP_IGNORE_INSTALLED": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    run = [shell, "-c", commands(CASES[case][0])]
    done = subprocess.run(run, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    would = " ".join(re.findall("Would install (.*)", done.stdout)).split()
    assert {package.rsplit("-", 1)[0] for package in would} == installs
    # Hashes count.
    other = "".join(lines).replace("sha256:", "sha256:0")[:-1]
    (tmp_path / "requirements/classic.txt").write_text(other)
    assert "k2" not in installs or subprocess.run(run, cwd=tmp_path, env=variables).returncode


def test_a_package_from_elsewhere_is_not_installed_again():
    facts = but(
        import_errors={"k2": "no module"},
        outside={"k2": "/foreign/k2/__init__.py"},
        pythonpath=("/foreign",),
        k2_python="38",
    )
    mends = {finding.mend for finding in examine(facts) if finding.broken}
    assert mends == {"unset PYTHONPATH; . ./path.sh"}
