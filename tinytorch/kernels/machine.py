"""What tells the machine that a number was measured on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

_LINUX = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Return what is stored beside a published number: cpu, cores, blas, python, numpy."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "blas": blas_name(blas_libraries()),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name, as far as the system tells it."""
    if _LINUX.is_file() and (name := re.search(r"^model name\s*: (.+)$", _LINUX.read_text(), re.MULTILINE)):
        return name[1]
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
            if done.stdout.strip():
                return done.stdout.strip()
    return platform.processor() or platform.machine()


def blas_libraries() -> list[dict[str, Any]]:
    """Return what is known of each BLAS that this process has loaded, its number of threads among it."""
    from threadpoolctl import threadpool_info

    return [lib for lib in threadpool_info() if lib["user_api"] == "blas"]


def blas_name(libraries: list[dict[str, Any]]) -> str:
    """Name each BLAS with the kernel that it took for this processor, which matters more than its version."""
    return ", ".join(sorted({f"{lib['internal_api']} {lib.get('architecture', '')}".strip() for lib in libraries}))
