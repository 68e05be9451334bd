"""What the operating system says about this processor's caches."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_LINUX = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class ReportedCache:
    """A data cache: `size` and `line` in bytes; `ways` and `shared_by` (logical processors) where they are told."""

    name: str
    size: int
    line: int
    ways: int | None = None
    shared_by: int | None = None


def reported_caches() -> tuple[ReportedCache, ...] | None:
    """Ask the operating system for the caches of the first processor, the nearest first; None if it does not tell.

    Linux tells (but not in every container), macOS tells, Windows does not without a program of its own. In a virtual
    machine the answer is what the host chose to show.
    """
    if sys.platform == "darwin":
        try:
            done = subprocess.run(["sysctl", "hw"], capture_output=True, text=True, check=False, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return parse_sysctl(done.stdout)
    return parse_sysfs(_LINUX)


def parse_sysfs(folder: Path) -> tuple[ReportedCache, ...] | None:
    """Read Linux's folder: `index0`, `index1`, … with one value in each file; None if there is nothing in it.

    Source: Documentation/ABI/testing/sysfs-devices-system-cpu in the Linux kernel.
    """
    caches = []
    for index in folder.glob("index[0-9]*"):
        said = {name: _line(index / name) for name in ("type", "level", "size", "coherency_line_size")}
        if said["type"] not in ("Data", "Unified") or None in said.values():
            continue
        sharing = _line(index / "shared_cpu_list")
        caches.append(
            ReportedCache(
                name=f"L{said['level']}",
                size=_bytes(said["size"] or ""),
                line=int(said["coherency_line_size"] or 0),
                ways=int(_line(index / "ways_of_associativity") or 0) or None,  # 0: fully associative, or not known
                shared_by=_processors(sharing) if sharing else None,
            )
        )
    return tuple(sorted(caches, key=lambda cache: cache.name)) or None


def parse_sysctl(text: str) -> tuple[ReportedCache, ...] | None:
    """Read what `sysctl hw` prints on macOS; of the fast cores (`perflevel0`) where there are two kinds."""
    said = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    caches = []
    for level, key in (("L1", "l1dcachesize"), ("L2", "l2cachesize"), ("L3", "l3cachesize")):
        size = int(said.get(f"hw.perflevel0.{key}", said.get(f"hw.{key}", "0")))
        if size > 0:
            caches.append(ReportedCache(level, size, int(said.get("hw.cachelinesize", "64"))))
    return tuple(caches) or None


def _line(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except OSError:
        return None


def _bytes(text: str) -> int:
    """Return 32768 for "32K"."""
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * unit


def _processors(text: str) -> int:
    """Return 6 for "0-3,8,9"."""
    ranges = [part.split("-") for part in text.split(",")]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)
