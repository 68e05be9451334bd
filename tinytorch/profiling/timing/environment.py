"""The machine and the software that a time depends on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import numpy as np

from tinytorch.kernels.backend import current_backend, get_num_threads
from tinytorch.kernels.machine import blas_libraries, blas_name, cpu_name, machine

__all__ = ["Environment", "cpu_name", "machine"]


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
        blas = blas_libraries()
        return cls(
            cpu=cpu_name(),
            cores=cores,
            usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
            blas=blas_name(blas),
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


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
