"""The most memory that this process ever held, as the operating system counts it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple


class HighWater(NamedTuple):
    """`nbytes` of physical memory, None where the system does not tell; `source` says where from, or why not."""

    nbytes: int | None
    source: str


def high_water() -> HighWater:
    """Return the most physical memory that this process has held since it began.

    It does not fall (Linux books some pages late, which may look like it), so that a block shows in it only by what it
    needs beyond all before it. It counts what tracing does not see, such as the workspaces of BLAS, and pages only when
    they are written to.
    """
    try:  # before getrusage: what that tells of a process on Linux begins with the size of the one that started it
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return HighWater(int(line.split()[1]) * 1024, "VmHWM in /proc/self/status")
    except OSError:
        pass
    try:
        if sys.platform == "win32":
            psutil = importlib.import_module("psutil")
            return HighWater(int(psutil.Process().memory_info().peak_wset), "peak working set")
        resource = importlib.import_module("resource")
    except ImportError as error:
        return HighWater(None, f"unknown on {sys.platform} without the module {error.name}")
    unit = 1 if sys.platform == "darwin" else 1024
    return HighWater(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "ru_maxrss of getrusage")
