"""The roofline: how fast a computation can be at best, given how much it computes with each byte that comes in.

The bytes are those that a level of memory hands over: what is read, and what is written too, since a line is fetched
before it is written to (`CacheCounts.fetched_bytes`). An array that is changed in place comes in once. Its way back is
not counted: it goes on beside the next reads and takes one thread little time of its own.

Source: Williams, Waterman & Patterson, "Roofline: an insightful visual performance model for multicore architectures"
(2009). The roofs of the caches beside that of memory: Ilic, Pratas & Sousa, "Cache-aware roofline model" (2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, overload

import numpy as np

from tinytorch.acceleration.compiled import need_numba
from tinytorch.acceleration.memory import allocate, measure_memory_hierarchy, read_bandwidth
from tinytorch.acceleration.system import reported_caches
from tinytorch.kernels.progress import progress_bar

MEMORY = "DRAM"
TOLERANCE = 0.05  # roofs and points are both measured; this is what two measurements of one thing may differ by


class AboveRoofError(ValueError):
    """A computation was reported as faster than the machine allows: a count or a time is wrong."""


class Point(NamedTuple):
    """A computation under its roof.

    `intensity` in operations per byte; `achieved` and `roof` in operations per second; `share` is their quotient;
    `limit` names what the roof is made of there: a level of memory, or the arithmetic of a dtype.
    """

    name: str
    intensity: float
    achieved: float
    roof: float
    share: float
    limit: str


@dataclass(frozen=True)
class Roofline:
    """The roofs of one thread.

    Attributes
    ----------
    peak_flops
        float32 operations per second; a multiplication and an addition are two.
    bandwidth
        Bytes per second that memory delivers.
    peak_int8
        Operations per second on int8 with int32 sums, if known.
    cache_bandwidth
        Bytes per second of each cache by its name.
    paths
        The instructions that the measured peaks came from, by dtype.

    Raises
    ------
    ValueError
        If a roof is not a positive number.

    Examples
    --------
    >>> roofline = Roofline(peak_flops=100e9, bandwidth=20e9)
    >>> roofline.ridge()  # FLOP per byte from which on arithmetic is the limit
    5.0
    >>> roofline.bound(0.25) / 1e9
    5.0
    >>> roofline.place("add", flops=1e6, bytes=8e6, seconds=1e-3).share
    0.4
    """

    peak_flops: float
    bandwidth: float
    peak_int8: float | None = None
    cache_bandwidth: Mapping[str, float] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roofs = {"peak_flops": self.peak_flops, "bandwidth": self.bandwidth, **self.cache_bandwidth}
        if self.peak_int8 is not None:
            roofs["peak_int8"] = self.peak_int8
        for name, roof in roofs.items():
            if not (np.isfinite(roof) and roof > 0):
                raise ValueError(f"{name} is {roof}: a roof is a positive number of operations or bytes per second")

    @classmethod
    def measure(cls, quick: bool = False, progress: bool = True) -> Roofline:
        """Measure the roofs of this machine on one thread: four seconds, or two if `quick`.

        Arithmetic: multiplications and additions in registers alone, by the widest instructions that the processor has
        (`paths` names them). Bandwidth: reading data of half and a quarter of each cache, and four times the last one,
        from front to back. All are the best of several runs. Where the operating system does not tell the caches,
        `measure_memory_hierarchy` finds them first, in some seconds more.

        Raises
        ------
        ModuleNotFoundError
            If Numba is not installed.
        RuntimeError
            If a kernel did not compute what it was timed for.
        """
        need_numba("measuring the roofline")
        from tinytorch.acceleration import peak

        repetitions = 10 if quick else 40
        working_sets = _working_sets()
        with progress_bar(total=2 + len(working_sets), desc="measuring roofs", disable=not progress) as bar:
            peaks, paths = {}, {}
            for dtype, candidates in (("float32", peak.FLOAT32), ("int8", peak.INT8)):
                path = peak.fastest(candidates)
                peaks[dtype], paths[dtype] = peak.measure_peak(path, repetitions), path.name
                bar.update()
            buffer = allocate(max(max(sizes) for sizes in working_sets.values()))
            bandwidth = {}
            for level, sizes in working_sets.items():
                bandwidth[level] = max(read_bandwidth(buffer, size, repetitions) for size in sizes)
                bar.update()
        memory = bandwidth.pop(MEMORY)
        return cls(peaks["float32"], memory, peaks["int8"], bandwidth, paths)

    @overload
    def bound(self, intensity: float, *, level: str = ..., dtype: str = ...) -> float: ...
    @overload
    def bound(self, intensity: np.ndarray, *, level: str = ..., dtype: str = ...) -> np.ndarray: ...
    def bound(
        self, intensity: float | np.ndarray, *, level: str = MEMORY, dtype: str = "float32"
    ) -> float | np.ndarray:
        """Return the operations per second that can be attained at so many operations per byte.

        `level` is where the bytes come from: "DRAM" or a name in `cache_bandwidth`. `dtype` is "float32" or "int8".
        """
        bound = np.minimum(self._peak(dtype), np.asarray(intensity, np.float64) * self._bandwidth(level))
        return bound if isinstance(intensity, np.ndarray) else float(bound)

    def ridge(self, *, level: str = MEMORY, dtype: str = "float32") -> float:
        """Return the operations per byte from which on arithmetic is the limit, no more the bytes from `level`."""
        return self._peak(dtype) / self._bandwidth(level)

    def place(
        self, name: str, flops: float, bytes: float, seconds: float, *, level: str = MEMORY, dtype: str = "float32"
    ) -> Point:
        """Place a measured computation under the roof.

        Parameters
        ----------
        flops, bytes, seconds
            What it computes, what comes in from `level`, and how long it takes on one thread.
        level, dtype
            As in `bound`.

        Raises
        ------
        AboveRoofError
            If it is more than 5 % above the roof.
        ValueError
            If one of the three is not a positive number, or there is no such roof.
        """
        for what, value in (("flops", flops), ("bytes", bytes), ("seconds", seconds)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name}: {what} is {value}, not a positive number")
        intensity, achieved = flops / bytes, flops / seconds
        roof = self.bound(intensity, level=level, dtype=dtype)
        compute_bound = intensity >= self.ridge(level=level, dtype=dtype)
        if achieved > (1 + TOLERANCE) * roof:
            check = (
                "Are the operations counted right, is the time that of one thread, and was the roof measured on this "
                "machine at its usual pace? If so, measure it again"
                if compute_bound
                else f"Does every byte come in from {level}? What is written back does not count. Data that stay in "
                f'a cache belong under its roof: level="{next(iter(self.cache_bandwidth), "L1")}", say'
            )
            raise AboveRoofError(
                f"{name} makes {achieved / 1e9:.4g} GFLOP/s of {dtype}, {achieved / roof:.2f} times what this machine "
                f"allows at {intensity:.3g} FLOP per byte: {roof / 1e9:.4g} GFLOP/s, the roof of "
                f"{f'{dtype} arithmetic' if compute_bound else f'reading {level}'}. {check}"
            )
        return Point(name, intensity, achieved, roof, achieved / roof, dtype if compute_bound else level)

    def _peak(self, dtype: str) -> float:
        peaks = {"float32": self.peak_flops, "int8": self.peak_int8}
        peak = peaks.get(dtype)
        if peak is None:
            known = ", ".join(name for name, value in peaks.items() if value is not None)
            raise ValueError(f"this roofline has no peak of {dtype!r}: it has {known}")
        return peak

    def _bandwidth(self, level: str) -> float:
        bandwidth = {MEMORY: self.bandwidth, **self.cache_bandwidth}
        if level not in bandwidth:
            raise ValueError(f"this roofline has no level {level!r}: it has {', '.join(bandwidth)}")
        return bandwidth[level]


def cache_sizes() -> dict[str, int]:
    """Return the bytes that each cache holds, the nearest first: as reported, else measured, in some seconds."""
    reported = reported_caches()
    if reported:
        return {cache.name: cache.size for cache in reported}
    return {f"L{i + 1}": step for i, step in enumerate(measure_memory_hierarchy(quick=True).steps)}


def _working_sets() -> dict[str, list[int]]:
    """Return bytes of data that each level holds, and no level before it."""
    sets, before = {}, 0
    for name, capacity in cache_sizes().items():
        sets[name] = [part for part in (capacity // 4, capacity // 2) if part >= 2 * before] or [capacity // 2]
        before = capacity
    return sets | {MEMORY: [min(max(4 * before, 64 << 20), 256 << 20)]}
