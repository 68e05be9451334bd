"""The loops that measure memory. What LLVM makes of them matters: without Numba their times mean nothing."""

from __future__ import annotations

import numpy as np

from tinytorch.acceleration.compiled import compiled


@compiled
def chase(links: np.ndarray, at: np.uint64, steps: int) -> np.uint64:
    """Follow links (uint64) from one place to the next: no load can begin before the one before it has ended."""
    for _ in range(steps):
        at = links[at]
    return at


@compiled
def read(numbers: np.ndarray, times: int) -> np.uint64:
    """Add all numbers (uint64) `times` times.

    Whole numbers, because their additions may be reordered: LLVM keeps four vectors of sums, so that it is the loads
    that take the time.
    """
    total = np.uint64(0)
    for _ in range(times):
        for i in range(numbers.shape[0]):
            total += numbers[i]
    return total
