#!/usr/bin/env python3
"""Print what is installed and, for each thing wrong, one line: what, why, how to mend it.

    python local/doctor.py [PYTHON]     PYTHON: the environment's (without: the one that runs this)

Exit status 1 if something is broken, else 0. Runs on a bare Python 3.8. Packages are imported in
processes of their own, so that one that crashes cannot take the doctor with it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from plateau.environment import Facts, examine, lock_of, pins  # noqa: E402

# Listed, and imported in the examined Python (as espeakng_loader and so on).
IMPORTS = (
    "torch k2 lhotse kaldifeat kaldi-native-fbank numpy scipy sentencepiece kaldialign soundfile "
    "espeakng-loader"
)

# What can be said without importing anything.
LOOK = """
import json, os, pathlib, platform, re, site, sys, sysconfig
from importlib import metadata, util

def built_for(package, name):
    spec = util.find_spec(package)
    if not spec or not spec.origin:
        return ""
    file = pathlib.Path(spec.origin).parent / "torch_version.py"
    found = re.search(name + r' = "(.*)"', file.read_text()) if file.exists() else None
    return found[1] if found else ""

def outside(packages):
    # Those of them that are not the environment's, nor its Python's.
    ours = [pathlib.Path(p).resolve() for p in (sys.prefix, sys.base_prefix)]
    others = [pathlib.Path(p).resolve() for p in PYTHONPATH]
    found = {}
    for package in packages:
        spec = util.find_spec(package.replace("-", "_"))
        if spec and spec.origin:
            folders = pathlib.Path(spec.origin).resolve().parents
            if any(p in folders for p in others) or not any(p in folders for p in ours):
                found[package] = spec.origin
    return found

PYTHONPATH = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep)
              if p and os.path.realpath(p) != os.getcwd()]
spec = util.find_spec("k2")
libraries = pathlib.Path(spec.origin).parent.parent.glob("_k2.*.so") if spec and spec.origin else []
print(json.dumps({
    "executable": sys.executable,
    "python": platform.python_version(),
    "outside": outside(sys.argv[1:]),
    "pythonpath": [os.path.realpath(p) for p in PYTHONPATH],
    "user_site": os.path.realpath(site.getusersitepackages()),
    "implementation": sys.implementation.name,
    # The first on the path is the one that is imported.
    "installed": {re.sub("[-_.]+", "-", d.metadata["Name"]).lower(): d.version
                  for d in reversed(list(metadata.distributions())) if d.metadata["Name"]},
    "k2_python": "".join(re.findall(r"cpython-(\\d+)", " ".join(f.name for f in libraries))[:1]),
    "k2_torch": built_for("k2", "k2_torch_version"),
    "kaldifeat_torch": built_for("kaldifeat", "kaldifeat_torch_version"),
    "python_headers": pathlib.Path(sysconfig.get_path("include"), "Python.h").exists(),
}))
"""
TORCH = """
import json, torch
archs = torch.cuda.get_arch_list()
print(json.dumps({"torch_cuda": torch.version.cuda or "", "torch_archs": archs}))
"""


def start(*command: str) -> subprocess.Popen | None:
    """Start a command whose output is wanted; None if it is not there."""
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    except OSError:
        return None


def output(process: subprocess.Popen | None) -> str:
    """What a command printed; nothing if it failed."""
    if process is None:
        return ""
    printed = process.communicate()[0]
    return "" if process.returncode else printed.strip()


def why_failed(process: subprocess.Popen) -> str:
    """Why an import failed, in one line; nothing if it did not."""
    lines = process.communicate()[1].strip().splitlines()
    if process.returncode < 0:
        return signal.Signals(-process.returncode).name
    return (lines or ["no message"])[-1] if process.returncode else ""


def libraries(environment: Mapping[str, str]) -> dict[str, str]:
    """By variable, a library of torch's or k2's that the linker would take before others."""
    ours = re.compile(r"lib(torch|c10|k2)\w*\.so")
    preloaded = re.split(r"[\s:]+", environment.get("LD_PRELOAD", ""))
    found = {"LD_PRELOAD": [file for file in preloaded if ours.match(Path(file).name)]}
    folders = filter(None, environment.get("LD_LIBRARY_PATH", "").split(":"))
    found["LD_LIBRARY_PATH"] = [
        str(file)
        for folder in folders
        for file in sorted(Path(folder).glob("lib*.so*"))
        if ours.match(file.name)
    ]
    return {variable: files[0] for variable, files in found.items() if files}


def collect(python: str) -> Facts:
    """Look at the machine and at the environment of the interpreter ``python``."""
    compiler = start(os.environ.get("CXX", "c++").split()[0], "--version")
    smi = start("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")
    look = json.loads(output(start(python, "-c", LOOK, *IMPORTS.split())) or "{}")
    settings = start(python, "-m", "pip", "config", "list")
    installed = look.get("installed", {})
    # Side by side: importing torch takes seconds.
    torch = start(python, "-c", TORCH) if "torch" in installed else None
    imports = {
        package: start(python, "-c", f"import {package.replace('-', '_')}")
        for package in IMPORTS.split()
        if package in installed or package in look.get("outside", {})
    }
    errors = {package: why_failed(process) for package, process in imports.items() if process}
    mark = Path(python).parent.parent / ".plateau"
    lock = lock_of(
        mark.read_text(encoding="utf-8") if mark.exists() else "",
        installed.get("torch", ""),
        look.get("python", ""),
    )
    locked = (ROOT / f"requirements/{lock}.txt").read_text(encoding="utf-8")
    about_torch = json.loads(output(torch) or "{}")
    return Facts(
        machine=f"{platform.system()} {platform.machine()}",
        glibc=platform.libc_ver()[1],
        lock=lock,
        required=pins(locked, look.get("python", "")),
        import_errors={package: error for package, error in errors.items() if error},
        torch_cuda=about_torch.get("torch_cuda", ""),
        torch_archs=tuple(about_torch.get("torch_archs", ())),
        gpus=tuple(
            tuple(line.split(", ")[:2]) for line in output(smi).splitlines() if ", " in line
        ),
        compiler=(output(compiler).splitlines() or [""])[0],
        pip_elsewhere="".join(
            re.findall(r"^(\S+\.(?:target|prefix|root|user))=", output(settings), re.MULTILINE)[:1]
        ),
        libraries=libraries(os.environ),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        disk_free_gb=shutil.disk_usage(ROOT).free / 1e9,
        **look,
    )


def table(facts: Facts) -> list[tuple[str, str]]:
    """What is installed, as rows of name and value."""
    rows = [("machine", f"{facts.machine}, glibc {facts.glibc}, {facts.cores} cores")]
    rows += [("disk", f"{facts.disk_free_gb:.0f} GB free")]
    rows += [("GPU", f"{n}, compute capability {c}") for n, c in facts.gpus] or [("GPU", "none")]
    rows += [("compiler", facts.compiler), ("python", f"{facts.implementation} {facts.python}")]
    rows += [("environment", facts.lock)]
    notes = {
        "torch": f", CUDA {facts.torch_cuda or 'none'}",
        "k2": f", for torch {facts.k2_torch} and Python {facts.k2_python}",
    }
    for package in IMPORTS.split():
        version = facts.installed.get(package, "")
        rows.append((package, version + notes.get(package, "") if version else ""))
    return [(name, value or "-") for name, value in rows]


def main() -> None:
    """Look, print, and tell by the exit status whether something is broken."""
    facts = collect(sys.argv[1] if len(sys.argv) > 1 else sys.executable)
    for name, value in table(facts):
        print(f"{name:<18} {value}")
    findings = examine(facts)
    print(*findings or ["all is well"], sep="\n")
    sys.exit(any(finding.broken for finding in findings))


if __name__ == "__main__":
    main()
