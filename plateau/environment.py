"""What can be wrong with an installation, and the command that mends it.

Only the standard library, and Python 3.8 is enough: ``local/doctor.py`` uses this where nothing is
installed yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

SET_UP = ". ./path.sh"


@dataclass(frozen=True)
class Facts:
    """What was found on a machine; empty strings and missing keys mean that it is not there."""

    machine: str = "Linux x86_64"  # uname -sm
    glibc: str = ""
    executable: str = ""  # the environment's Python
    python: str = ""  # version of the environment's Python, "3.11.7"; "": no environment
    implementation: str = "cpython"
    # name → version, as the packages' metadata tell
    installed: dict[str, str] = field(default_factory=dict)
    lock: str = "classic"  # whose packages it should have, classic or current
    # name → version, as the lock asks for
    required: dict[str, str] = field(default_factory=dict)
    # name → last line of what the failed import said
    import_errors: dict[str, str] = field(default_factory=dict)
    # name → file of what is imported and lies neither in the environment nor in its Python
    outside: dict[str, str] = field(default_factory=dict)
    pythonpath: tuple[str, ...] = ()  # folders of PYTHONPATH, without the repository
    user_site: str = ""  # where pip install --user puts packages
    pip_elsewhere: str = ""  # a setting of pip's that sends packages elsewhere, "global.target"
    # LD_PRELOAD or LD_LIBRARY_PATH → the file of torch's or k2's that it puts before others
    libraries: dict[str, str] = field(default_factory=dict)
    k2_python: str = ""  # the Python that k2's library is for, as in its file name: "311"
    k2_torch: str = ""  # the torch that k2 was built for
    kaldifeat_torch: str = ""  # the torch that kaldifeat was built for
    torch_cuda: str = ""  # the CUDA that torch was built with
    torch_archs: tuple[str, ...] = ()  # "sm_86" …; empty where torch sees no GPU
    gpus: tuple[tuple[str, str], ...] = ()  # name and compute capability, "8.6"; from the driver
    compiler: str = ""
    python_headers: bool = True
    cores: int = 1
    disk_free_gb: float = 100.0  # where the repository is


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``broken``), or only worth a note."""

    what: str
    why: str
    mend: str  # a command, or what to do
    broken: bool = True

    def __str__(self) -> str:
        return f"{'WRONG' if self.broken else 'note '}  {self.what}: {self.why} -> {self.mend}"


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, for comparison: "1.13.1+cu117" → (1, 13, 1)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def lock_of(mark: str, torch: str, python: str) -> str:
    """Return the name of the lock that an environment is of, classic or current.

    Args:
        mark: what path.sh wrote into it, which names the lock; "" where somebody else made it
        torch: version, "" where it is not there
        python: version
    """
    named = re.search(r"requirements/(\w+)\.txt", mark)
    if named:
        return named[1]
    if torch:
        return "current" if numbers(torch) >= (2,) else "classic"
    return "classic" if numbers(python)[:2] in ((), (3, 11)) else "current"


def pins(lock: str, python: str) -> dict[str, str]:
    """Return name → version of what a lock has for a Python.

    Args:
        lock: text of requirements/….txt
        python: version, "3.12.1"
    """
    short = ".".join(python.split(".")[:2])
    lines = [line for line in lock.splitlines() if re.match(r"\w\S*==", line)]
    mine = [line for line in lines if " ; " not in line or f'"{short}"' in line]
    return dict(line.split()[0].split("==") for line in mine)


def _python(facts: Facts) -> str:
    return quote(facts.executable) if facts.executable else "python"


def _pip(facts: Facts, *arguments: str) -> str:
    return " ".join((_python(facts), "-m pip", *arguments))


def _older_pip(facts: Facts) -> str:
    """A command to go before others, if k2's wheels are refused."""
    refused = facts.lock == "classic" and numbers(facts.installed.get("pip", "")) >= (26, 3)
    return _pip(facts, "install 'pip<26.3' && ") if refused else ""


def _build_kaldifeat(facts: Facts) -> str:
    return f"{_python(facts)} utils/build_kaldifeat.py"


def _from_pythonpath(facts: Facts, package: str) -> bool:
    path = Path(facts.outside[package])
    return any(Path(folder) in path.parents for folder in facts.pythonpath)


def _reinstall(facts: Facts, package: str) -> str:
    """The command that puts the locked package where it is imported from."""
    if package in facts.outside:  # what is in the environment does not matter then
        if _from_pythonpath(facts, package):
            return f"unset PYTHONPATH; {SET_UP}"
        if facts.user_site and Path(facts.user_site) in Path(facts.outside[package]).parents:
            return "export PYTHONNOUSERSITE=1"
    older = _older_pip(facts) if package == "k2" else ""
    # With its hash, which tells k2's wheels apart.
    line = f"grep '^{package}==' requirements/{facts.lock}.txt"
    return f"{older}{line} | {_pip(facts, 'install --force-reinstall --no-deps -r /dev/stdin')}"


def _install(facts: Facts) -> str:
    return _older_pip(facts) + _pip(facts, f"install -r requirements/{facts.lock}.txt")


def _torch2(facts: Facts) -> bool:
    return numbers(facts.installed.get("torch", "")) >= (2,)


def check_machine(facts: Facts) -> Finding | None:
    """The locked wheels are for Linux x86-64 with glibc 2.28 or newer."""
    own = "make an environment with torch 2.x yourself; export PLATEAU_VENV=its folder"
    if facts.machine != "Linux x86_64":
        why = "the locked packages are for Linux x86-64"
        return Finding(facts.machine, why, own, broken=not _torch2(facts))
    if facts.glibc and numbers(facts.glibc) < (2, 28):
        why = "older than 2.28, which the locked packages need"
        return Finding(f"glibc {facts.glibc}", why, "use a newer system or a container")
    return None


def check_python(facts: Facts) -> Finding | None:
    """Classic is for CPython 3.11; current for that and newer ones."""
    if not facts.python:
        why = "its Python is not there or does not start"
        return Finding("no environment", why, SET_UP)
    version = numbers(facts.python)
    fits = version[:2] == (3, 11) if facts.lock == "classic" else version >= (3, 11)
    if fits and (facts.implementation == "cpython" or _torch2(facts)):
        return None
    what = f"{facts.implementation} {facts.python}"
    newer = "" if facts.lock == "classic" else " to 3.13"
    why = f"the packages of {facts.lock} are for CPython 3.11{newer}"
    return Finding(what, why, f"unset PLATEAU_VENV; {SET_UP}")


def check_missing(facts: Facts) -> Finding | None:
    """What the lock asks for and is not installed."""
    missing = [name for name in facts.required if name not in facts.installed]
    if facts.lock == "current":  # torch brings the CUDA that it is for, if any
        cuda = re.compile("nvidia-|cuda-|triton$")
        missing = [name for name in missing if not cuda.match(name)]
    if check_pip(facts):
        missing = [name for name in missing if name != "k2"]
    if not facts.python or not missing:
        return None
    what = "missing: " + ", ".join(missing[:6]) + (" …" if len(missing) > 6 else "")
    return Finding(what, f"requirements/{facts.lock}.txt asks for it", _install(facts))


def check_pip(facts: Facts) -> Finding | None:
    """From 26.3 on pip refuses names like k2-1.23.4-py3.11-none-any.whl."""
    pip = facts.installed.get("pip", "")
    if "k2" in facts.installed or numbers(pip) < (26, 3) or _torch2(facts):
        return None
    why = "from 26.3 on it says of k2's wheels that there is no matching distribution"
    return Finding(f"pip {pip}", why, _install(facts))


def check_k2_wheel(facts: Facts) -> Finding | None:
    """Installers cannot tell k2's wheels for Python 3.7 to 3.11 apart and take the wrong one."""
    python = "".join(facts.python.split(".")[:2])
    if not facts.python or facts.k2_python in ("", python):
        return None
    version = f"{facts.k2_python[0]}.{facts.k2_python[1:]}"
    why = f"this is Python {facts.python}; its wheels look alike to pip, only the hash tells"
    return Finding(f"k2 is the wheel for Python {version}", why, _reinstall(facts, "k2"))


def check_k2_torch(facts: Facts) -> Finding | None:
    """k2 works with exactly the torch that it was built for."""
    torch = facts.installed.get("torch", "")
    if not torch or not facts.k2_torch or numbers(torch) == numbers(facts.k2_torch):
        return None
    what = f"k2 was built for torch {facts.k2_torch}"
    if facts.required.get("torch") == ".".join(map(str, numbers(facts.k2_torch))):
        return Finding(what, f"torch here is {torch}", _reinstall(facts, "torch"))
    mend = f"install the k2 for torch {torch} from the k2 project's own index of wheels"
    return Finding(what, f"torch here is {torch}", mend)


def check_k2_missing(facts: Facts) -> Finding | None:
    """With torch 2 there may be no k2."""
    if not _torch2(facts) or "k2" in facts.installed:
        return None
    why = "transducers' losses need it; everything else works"
    mend = f"with CPython 3.11: export PLATEAU_ENV=classic; {SET_UP}"
    return Finding("no k2", why, mend, broken=False)


def check_torch2(facts: Facts) -> Finding | None:
    """Say what was not tested."""
    locked = facts.required.get("torch", "")
    if not _torch2(facts) or numbers(facts.installed["torch"]) == numbers(locked):
        return None
    what = f"torch {facts.installed['torch']}"
    why = f"it was tested with torch {locked or '1.13.1'}"
    return Finding(what, why, "./run_tests.sh tells whether all works here", broken=False)


def check_numpy(facts: Facts) -> Finding | None:
    """Torch before 2.3 was compiled against numpy 1."""
    numpy, torch = facts.installed.get("numpy", ""), facts.installed.get("torch", "")
    if not torch or numbers(torch) >= (2, 3) or numbers(numpy) < (2,):
        return None
    why = f"torch {torch} was compiled against numpy 1 and fails with 2"
    return Finding(f"numpy {numpy}", why, _reinstall(facts, "numpy"))


def check_lhotse(facts: Facts) -> Finding | None:
    """From 1.32 on Lhotse's samplers call their base class as torch 2 has it."""
    lhotse = facts.installed.get("lhotse", "")
    if "torch" not in facts.installed or _torch2(facts) or numbers(lhotse) < (1, 32):
        return None
    why = f"its samplers fail with torch {facts.installed['torch']}"
    return Finding(f"lhotse {lhotse}", why, _reinstall(facts, "lhotse"))


def check_torchaudio(facts: Facts) -> Finding | None:
    """Torchaudio is not needed; one for another torch breaks what imports it, Lhotse first."""
    torch, audio = (numbers(facts.installed.get(n, "")) for n in ("torch", "torchaudio"))
    expected = (0, *torch[1:]) if torch < (2,) else torch  # 0.13.1 goes with 1.13.1
    if not torch or not audio or audio[:2] == expected[:2]:
        return None
    what = f"torchaudio {facts.installed['torchaudio']}"
    why = f"it is not the one for torch {facts.installed['torch']}, and not needed"
    return Finding(what, why, _pip(facts, "uninstall -y torchaudio"))


def check_kaldifeat(facts: Facts) -> Finding | None:
    """Without kaldifeat others compute the features; with one for another torch nothing does."""
    torch = facts.installed.get("torch", "")
    if not torch:
        return None
    built_for = facts.kaldifeat_torch
    if built_for and numbers(built_for) != numbers(torch):
        what = f"kaldifeat was built for torch {built_for}"
        return Finding(what, f"torch here is {torch}", _build_kaldifeat(facts))
    if "kaldifeat" in facts.installed:
        return None
    native = "kaldi-native-fbank" in facts.installed
    other = "kaldi-native-fbank" if native else "Lhotse's own fbank"
    why = f"features are computed by {other}, on the CPU"
    if not facts.compiler:
        mend = f"install a C++ compiler (on Debian: apt-get install g++); {_build_kaldifeat(facts)}"
    elif not facts.python_headers:
        package = f"python{'.'.join(facts.python.split('.')[:2])}-dev"
        mend = (
            f"install Python's headers (on Debian: apt-get install {package}); "
            f"{_build_kaldifeat(facts)}"
        )
    else:
        mend = _build_kaldifeat(facts)
    return Finding("no kaldifeat", why, mend, broken=False)


def check_gpu(facts: Facts) -> Finding | None:
    """A GPU runs code compiled for its own generation (same major, lower or equal minor)."""
    if not facts.gpus or "torch" not in facts.installed:
        return None
    name = facts.gpus[0][0]
    if not facts.torch_archs:
        if "torch" in facts.import_errors:
            return None
        why = f"torch {facts.installed['torch']} (CUDA {facts.torch_cuda or 'none'}) cannot use it"
        mend = "nvidia-smi shows the driver's CUDA, which must not be older; or train on the CPU"
        if not facts.torch_cuda:
            mend = f"remove the environment, and make it where the GPU is: {SET_UP}"
        return Finding(name, why, mend, broken=False)
    compiled = [
        (match[1], int(match[2]), int(match[3]))
        for match in (re.match(r"(sm|compute)_(\d+)(\d)", arch) for arch in facts.torch_archs)
        if match
    ]
    for name, capability in facts.gpus:
        gpu = numbers(capability)
        runs = any(
            (kind == "sm" and major == gpu[0] and minor <= gpu[1])
            or (kind == "compute" and (major, minor) <= gpu)
            for kind, major, minor in compiled
            if len(gpu) == 2
        )
        if len(gpu) == 2 and not runs:
            what = f"{name} has compute capability {capability}"
            why = (
                f"torch {facts.installed['torch']} has code only for {' '.join(facts.torch_archs)}"
            )
            mend = "train on the CPU: export CUDA_VISIBLE_DEVICES="
            other = "current" if gpu > (8, 6) else "classic"
            if facts.lock != other:
                mend = f"unset PLATEAU_VENV; export PLATEAU_ENV={other}; {SET_UP}. Or {mend}"
            return Finding(what, why, mend)
    return None


def check_disk(facts: Facts) -> Finding | None:
    """The environment takes 4 GB; data and experiments come to it."""
    need = 1.0 if "torch" in facts.installed else 6.0
    if facts.disk_free_gb >= need:
        return None
    what = f"{facts.disk_free_gb:.1f} GB free on the disk"
    why = f"{need:.0f} GB are wanted"
    return Finding(
        what, why, "make room, or put the environment elsewhere: export PLATEAU_VENV=DIR"
    )


def check_outside(facts: Facts) -> Finding | None:
    """Packages that are found before those of the environment."""
    name = next(iter(sorted(facts.outside, key=lambda name: name not in facts.import_errors)), "")
    if not name or not (_from_pythonpath(facts, name) or name in facts.import_errors):
        return None
    others = sorted(set(facts.outside) - {name})
    what = f"{name} comes from {facts.outside[name]}" + (
        f" ({', '.join(others)} too)" * bool(others)
    )
    why = "it is not the environment's"
    if name in facts.import_errors:
        why += f", and its import fails: {facts.import_errors[name]}"
    return Finding(what, why, _reinstall(facts, name), broken=name in facts.import_errors)


def check_pip_settings(facts: Facts) -> Finding | None:
    """Settings of pip's by which packages do not get into the environment."""
    if not facts.pip_elsewhere:
        return None
    section, _, name = facts.pip_elsewhere.rpartition(".")
    what = f"pip's setting {name}"
    why = "it sends packages elsewhere than into the environment"
    if section == ":env:":
        return Finding(what, why, f"unset PIP_{name.upper().replace('-', '_')}")
    return Finding(what, why, _pip(facts, f"config unset {facts.pip_elsewhere}"))


def check_libraries(facts: Facts) -> Finding | None:
    """Libraries that the dynamic linker takes in place of the environment's."""
    for variable, file in facts.libraries.items():
        why = f"{variable} puts it before the environment's"
        return Finding(file, why, f"unset {variable}", broken=bool(facts.import_errors))
    return None


CHECKS = (
    check_machine,
    check_python,
    check_missing,
    check_pip,
    check_k2_wheel,
    check_k2_torch,
    check_k2_missing,
    check_torch2,
    check_numpy,
    check_lhotse,
    check_torchaudio,
    check_kaldifeat,
    check_gpu,
    check_disk,
    check_outside,
    check_pip_settings,
    check_libraries,
)


def check_imports(facts: Facts, explained: list[Finding]) -> list[Finding]:
    """Failed imports for which no other check has a reason."""
    told = " ".join(finding.what for finding in explained if finding.broken)
    findings = []
    for name, error in facts.import_errors.items():
        if name in facts.installed and name not in told and "torch" not in told:
            mend = _build_kaldifeat(facts) if name == "kaldifeat" else _reinstall(facts, name)
            findings.append(Finding(f"import of {name} fails", error, mend))
    return findings


def examine(facts: Facts) -> list[Finding]:
    """Return all that is wrong, then the notes."""
    findings = [finding for finding in (check(facts) for check in CHECKS) if finding]
    findings += check_imports(facts, findings)
    return sorted(findings, key=lambda finding: not finding.broken)
