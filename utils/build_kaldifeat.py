#!/usr/bin/env python3
"""Build kaldifeat from its source distribution, cache the wheel, and install it.

kaldifeat's own CMake build wants network access and a whole CUDA toolkit. Its sources need neither:
they are plain libtorch code, here compiled as two translation units by torch's own extension
builder. (One unit per file would parse torch's headers twenty times: minutes in place of seconds.)

The wheel is kept in ``${XDG_CACHE_HOME:-~/.cache}/plateau``; its name tells kaldifeat's version,
torch's version, the Python and the platform, so a second clone only installs it.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

VERSION = "1.24"
SHA256 = "71f0f696d8c3fa7e536fede7e16e4f4fe347e8f424e22449478bd9f10b9ed935"

SETUP = """\
from pathlib import Path
import torch
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

def unit(name, folder):
    sources = sorted(s for s in Path(folder).glob("*.cc") if "test" not in s.name)
    Path(name).write_text("".join(f'#include "{{s}}"\\n' for s in sources))
    return name

Path("kaldifeat/python/kaldifeat/torch_version.py").write_text(
    f'kaldifeat_torch_version = "{{torch.__version__}}"\\n')
major, minor = torch.__version__.split(".")[:2]
setup(
    name="kaldifeat",
    version="{version}",
    packages=["kaldifeat"],
    package_dir={{"kaldifeat": "kaldifeat/python/kaldifeat"}},
    ext_modules=[CppExtension(
        "_kaldifeat",
        [unit("core.cc", "kaldifeat/csrc"), unit("python.cc", "kaldifeat/python/csrc")],
        include_dirs=[str(Path.cwd())],
        define_macros=[("KALDIFEAT_TORCH_VERSION_MAJOR", major),
                       ("KALDIFEAT_TORCH_VERSION_MINOR", minor)],
        extra_compile_args=["-O2", "-g0"],
    )],
    cmdclass={{"build_ext": BuildExtension}},
)
"""


class BuildError(Exception):
    """kaldifeat cannot be had here; the message says why and what to do."""


def local_version() -> str:
    """kaldifeat's version with that of the torch it is built for: a PEP 440 local version."""
    return f"{VERSION}+torch{version('torch').replace('+', '.')}"


def cached_wheel() -> Path:
    """Where the wheel for this Python, torch and platform is kept, built already or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plateau"
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return cache / f"kaldifeat-{local_version()}-{python}-{python}-{platform}.whl"


def check_tools() -> None:
    """Raise `BuildError` where a C++ compiler or Python's headers are missing."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        raise BuildError(f"no C++ compiler ({compiler}): install one, on Debian g++")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        raise BuildError(f"no Python.h: install Python's headers, on Debian {python}-dev")


def run(command: list[str], folder: Path, log: Path) -> None:
    """Run a build step, its output appended to ``log``; `BuildError` shows the first errors."""
    # ninja, which compiles the two units side by side, lies beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("a") as output:
        status = subprocess.run(
            command, cwd=folder, env={**os.environ, "PATH": path}, stdout=output, stderr=output
        ).returncode
    if status:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line[:200] for line in lines if "error" in line.lower()][:2] or lines[-2:]
        raise BuildError("\n".join([*errors, f"all of the output: {log}"]))


def build(wheel: Path) -> None:
    """Fetch the sources, compile them, and put the wheel into the cache, whole or not at all."""
    check_tools()
    print("kaldifeat: building it, half a minute to a minute …", file=sys.stderr)
    wheel.parent.mkdir(parents=True, exist_ok=True)
    log = wheel.with_suffix(".log")
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=wheel.parent) as temporary:
        folder = Path(temporary)
        (folder / "source.txt").write_text(f"kaldifeat=={VERSION} --hash=sha256:{SHA256}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "-r", "source.txt"]
        run([*pip, *options], folder, log)
        with tarfile.open(folder / f"kaldifeat-{VERSION}.tar.gz") as archive:
            archive.extractall(folder)  # its hash was checked
        source = folder / f"kaldifeat-{VERSION}"
        (source / "setup.py").write_text(SETUP.format(version=local_version()))
        run([sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(folder)], source, log)
        (folder / wheel.name).replace(wheel)


def install(wheel: Path) -> None:
    """Install the wheel and see that it imports; `BuildError` if it does not."""
    log = wheel.with_suffix(".log")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    run([*pip, "--no-deps", "--force-reinstall", str(wheel)], wheel.parent, log)
    run([sys.executable, "-c", "import kaldifeat"], wheel.parent, log)


def main() -> None:
    """Install kaldifeat from the cache; build it first where it is not there or does not load."""
    wheel = cached_wheel()
    try:
        if wheel.exists():
            try:
                return install(wheel)
            except BuildError:
                print(f"kaldifeat: {wheel} does not load here", file=sys.stderr)
        build(wheel)
        install(wheel)
    except (BuildError, OSError) as error:
        sys.exit(
            f"kaldifeat: {error}\nkaldi-native-fbank takes its place. "
            "To build kaldifeat later: python utils/build_kaldifeat.py"
        )


if __name__ == "__main__":
    main()
