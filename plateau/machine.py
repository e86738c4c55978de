"""What a figure depends on: the line that benchmarks and reports give with it."""

import os
import platform
import re
from pathlib import Path

import torch


def machine() -> str:
    """CPU model, cores, threads of torch, its version, and the GPU if there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    cpu = found[1] if found else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {os.cpu_count()} cores (load {load:.1f}), "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}{gpu}"
    )
