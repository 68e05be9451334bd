"""How long this machine's memory takes to answer, and how much it delivers, for data of every size.

Latency is measured by pointer chasing: every cache line of the data holds the place of another one, in a random order
that leads through all of them, so that neither a prefetcher nor the processor's own look-ahead knows the next address.
Bandwidth is that of reading the data from front to back, whole vectors at a time, on one thread. Both are the best of
several passes over all sizes: what else runs on the machine, and shares its last cache, can only slow them down.

The data lie in huge pages where the system grants them (Linux: NumPy asks for them). Elsewhere, and for data larger
than the processor's tables of pages reach (the TLB: a few thousand entries), part of the latency is the translation of
addresses.

Sources: McVoy & Staelin, "lmbench: portable tools for performance analysis" (1996); Drepper, "What every programmer
should know about memory" (2007), section 3.3.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinytorch.acceleration.compiled import need_numba
from tinytorch.acceleration.plateaus import Plateau, find_plateaus
from tinytorch.acceleration.system import ReportedCache, reported_caches
from tinytorch.kernels.progress import progress_bar

_SMALLEST = 4 << 10
_HUGE_PAGE = 2 << 20
_WORD = 8  # bytes of a link
_WARM = 1 << 16  # links that are followed before the clock starts, at most


@dataclass(frozen=True, eq=False)
class MemoryHierarchy:
    """The staircase of one machine, and what its operating system says about its caches.

    Attributes
    ----------
    sizes
        Bytes of data, growing: (sizes,).
    latency
        Seconds from one dependent load to the next: (sizes,).
    bandwidth
        Bytes per second, read in order: (sizes,).
    reported
        The caches that the operating system names, the nearest first; None where it does not tell.
    """

    sizes: np.ndarray
    latency: np.ndarray
    bandwidth: np.ndarray
    reported: tuple[ReportedCache, ...] | None

    @cached_property
    def plateaus(self) -> tuple[Plateau, ...]:
        """The flat parts of the latency, the last one being memory: see `find_plateaus`."""
        return find_plateaus(self.sizes, self.latency, self.bandwidth)

    @property
    def steps(self) -> tuple[int, ...]:
        """Bytes at which the latency steps up: the measured capacities of the caches."""
        return tuple(plateau.up_to for plateau in self.plateaus if plateau.up_to is not None)

    @property
    def side_by_side(self) -> tuple[tuple[ReportedCache, int | None], ...]:
        """Each reported cache and the step nearest to its size, None if there is none within a factor of two."""
        pairs: list[tuple[ReportedCache, int | None]] = []
        for cache in self.reported or ():
            nearest = min(self.steps, key=lambda step: abs(np.log2(step / cache.size)), default=None)
            near = nearest is not None and cache.size / 2 <= nearest <= 2 * cache.size
            pairs.append((cache, nearest if near else None))
        return tuple(pairs)


def measure_memory_hierarchy(
    quick: bool = False,
    *,
    largest: int | None = None,
    rng: np.random.Generator | None = None,
    progress: bool = True,
) -> MemoryHierarchy:
    """Measure latency and read bandwidth of data from 4 KiB up to well beyond the last cache, on one thread.

    Takes 20 seconds, or three if `quick`. Ctrl-C ends it within a fraction of a second and leaves
    nothing behind.

    Parameters
    ----------
    quick
        Two sizes per octave instead of four, and fewer passes.
    largest
        Bytes of the largest data. By default four times the last cache that the system reports, but 64 MiB at least
        and 256 MiB at most.
    rng
        Where the order of the links comes from.
    progress
        Whether to show a bar.

    Raises
    ------
    ModuleNotFoundError
        If Numba is not installed.
    ValueError
        If `largest` is less than 8 KiB.
    """
    need_numba("measuring the memory hierarchy")
    rng = np.random.default_rng(0) if rng is None else rng
    reported = reported_caches()
    if largest is None:
        largest = min(256 << 20, max(64 << 20, 4 * reported[-1].size if reported else 0))
    if largest < 2 * _SMALLEST:
        raise ValueError(f"the largest data are at least {2 * _SMALLEST} bytes, not {largest}")
    line = reported[0].line if reported else 64
    sizes = data_sizes(largest, 2 if quick else 4)
    buffer = allocate(largest)
    passes, block = (2, 0.003) if quick else (4, 0.01)
    seconds = np.full((2, len(sizes)), np.inf)
    with progress_bar(total=passes * len(sizes), desc="measuring memory", unit="size", disable=not progress) as bar:
        for _ in range(passes):
            for i, size in enumerate(sizes.tolist()):
                seconds[0, i] = min(seconds[0, i], _seconds_per_link(buffer, size, line, rng, block))
                seconds[1, i] = min(seconds[1, i], size / read_bandwidth(buffer, size, 2, block))
                bar.update()
    return MemoryHierarchy(sizes, seconds[0], sizes / seconds[1], reported)


def data_sizes(largest: int, per_octave: int) -> np.ndarray:
    """Return sizes from 4 KiB to `largest`, equally far from one another on a logarithmic scale, in whole 256 bytes."""
    count = int(per_octave * np.log2(largest / _SMALLEST))
    return (_SMALLEST * 2.0 ** (np.arange(count + 1) / per_octave)).astype(np.int64) // 256 * 256


def allocate(size: int) -> np.ndarray:
    """Return `size` bytes as uint64 from the beginning of a huge page on, all of them written to once."""
    memory = np.empty((size + _HUGE_PAGE) // _WORD, np.uint64)
    first = -memory.ctypes.data % _HUGE_PAGE // _WORD
    buffer = memory[first : first + size // _WORD]
    buffer[:] = 1
    return buffer


def link_lines(buffer: np.ndarray, lines: int, words: int, rng: np.random.Generator) -> None:
    """Link the first `lines` cache lines of `words` words into one cycle, in random order."""
    order = rng.permutation(lines).astype(np.uint64) * np.uint64(words)
    buffer[order] = np.roll(order, -1)


def read_bandwidth(buffer: np.ndarray, size: int, repetitions: int = 5, block: float = 0.01) -> float:
    """Return the bytes per second at which the first `size` bytes are read from front to back."""
    from tinytorch.acceleration import memory_loops

    part = buffer[: size // _WORD]
    return part.nbytes / _best(lambda times: memory_loops.read(part, times), repetitions, block)


def _seconds_per_link(buffer: np.ndarray, size: int, line: int, rng: np.random.Generator, block: float) -> float:
    from tinytorch.acceleration import memory_loops

    at = np.uint64(0)
    link_lines(buffer, size // line, line // _WORD, rng)

    def follow(steps: int) -> None:
        nonlocal at
        at = np.uint64(memory_loops.chase(buffer, at, steps))  # goes on where it stopped

    return _best(follow, 2, block, calls=min(size // line, _WARM))


def _best(run: Callable[[int], object], repetitions: int, block: float, calls: int = 1) -> float:
    """Return the fewest seconds per call of `run(calls)`, with as many calls as fill `block` seconds."""
    run(calls)
    seconds = _seconds(run, calls)
    while seconds < block:
        calls = max(calls + 1, math.ceil(calls * min(100.0, 1.1 * block / max(seconds, 1e-9))))
        seconds = _seconds(run, calls)
    return min(_seconds(run, calls) for _ in range(repetitions)) / calls


def _seconds(run: Callable[[int], object], calls: int) -> float:
    start = time.perf_counter()
    run(calls)
    return time.perf_counter() - start
