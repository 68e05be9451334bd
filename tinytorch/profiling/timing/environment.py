"""The machine and the software that a time depends on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.kernels.backend import current_backend, get_num_threads

_LINUX = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Environment:
    """What was measured on.

    Attributes
    ----------
    cpu, cores
        The processor's name and its logical cores; `usable` of them this process may use.
    blas, blas_threads
        The BLAS that NumPy loaded with the kernel that it took for this processor, and its threads.
    python, numpy
        Versions.
    backend, threads
        TinyTorch's backend and the threads of its compiled kernels.
    """

    cpu: str
    cores: int
    usable: int
    blas: str
    blas_threads: int
    python: str
    numpy: str
    backend: str
    threads: int

    @classmethod
    def current(cls) -> Environment:
        """Describe this process as it is now."""
        cores = os.cpu_count() or 1
        blas = _blas()
        return cls(
            cpu=cpu_name(),
            cores=cores,
            usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
            blas=_name(blas),
            blas_threads=max((lib["num_threads"] for lib in blas), default=1),
            python=platform.python_version(),
            numpy=np.__version__,
            backend=current_backend(),
            threads=get_num_threads(),
        )

    def __str__(self) -> str:
        cores = f"{self.usable} of {self.cores} cores" if self.usable < self.cores else _plural(self.cores, "core")
        return (
            f"{self.cpu}, {cores}; BLAS {self.blas or 'unknown'}, {_plural(self.blas_threads, 'thread')}; "
            f"TinyTorch {self.backend}, {_plural(self.threads, 'thread')}; Python {self.python}, NumPy {self.numpy}"
        )


def machine() -> dict[str, Any]:
    """Return what is stored beside a published timing: cpu, cores, blas, python, numpy."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "blas": _name(_blas()),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


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


def _blas() -> list[dict[str, Any]]:
    from threadpoolctl import threadpool_info

    return [lib for lib in threadpool_info() if lib["user_api"] == "blas"]


def _name(blas: list[dict[str, Any]]) -> str:
    # the kernel OpenBLAS took matters more than its version
    return ", ".join(sorted({f"{lib['internal_api']} {lib.get('architecture', '')}".strip() for lib in blas}))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
