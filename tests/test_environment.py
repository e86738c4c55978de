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

from plateau.environment import CHECKS, Facts, examine, numbers

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
        "grep '^k2==' requirements.txt | python -m pip install --force-reinstall --no-deps -r",
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
    "package missing": (having(lhotse=None), "missing", True, "lhotse", "requirements.txt"),
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
        "torch 2.x",
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
        "Lhotse's own Kaldi-compatible fbank",
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


def test_torch_2_without_k2_is_only_noted():
    facts = but(
        python="3.12.1",
        installed={"torch": "2.6.0+cu124", "numpy": "1.26.4", "lhotse": "1.33.0"},
        k2_python="",
        k2_torch="",
        kaldifeat_torch="",
        gpus=(("NVIDIA H100", "9.0"),),
        torch_archs=("sm_80", "sm_90"),
    )
    findings = examine(facts)
    assert not any(finding.broken for finding in findings)
    assert {finding.what for finding in findings} == {"no k2", "torch 2.6.0+cu124", "no kaldifeat"}


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
    wheel(tmp_path / "wheels", "pip", "26.2.1")
    for name, version in HEALTHY.required.items():
        sha = wheel(tmp_path / "wheels", name, f"{version}")
        lines.append(f"{name}=={version} --hash=sha256:{sha}\n")
    (tmp_path / "requirements.txt").write_text("".join(lines))
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
    (tmp_path / "requirements.txt").write_text("".join(lines).replace("sha256:", "sha256:0")[:-1])
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
