"""Where values lie, seen batch by batch: few of them as they are, many in bins whose number does not grow."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

_BINS = 4096  # on each side of zero: 8 and more to a step of 8 bits
_KEPT = 2 * _BINS  # so many values take no more room than the bins do
_SMALLEST_EXPONENT = -149  # every float32 is a multiple of 2^-149


class Cells(NamedTuple):
    """Intervals from `lower` to `upper` that hold `counts` values, in ascending order, none empty: (n,) each."""

    lower: np.ndarray
    upper: np.ndarray
    counts: np.ndarray


class Histogram:
    """Where values lie: the values themselves, until there are more than 8192; then 4096 bins on each side of zero.

    Bin i holds i w <= x < (i + 1) w. The width w is the smallest power of two for which every |x| seen is below 4096 w,
    so it is at most 1/2048 of the largest. When it doubles, bins merge in pairs, and no value has to be seen again.
    """

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf
        self._values: np.ndarray | None = np.empty(0, np.float32)
        self._counts = np.zeros(2 * _BINS, np.int64)
        self._exponent = _SMALLEST_EXPONENT

    @property
    def width(self) -> float:
        """The width of the bins; 0 as long as the values themselves are kept."""
        return 0.0 if self._values is not None else 2.0**self._exponent

    def add(self, x: np.ndarray) -> None:
        """Take finite float32 values (n,), n > 0."""
        self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))
        if self._values is not None:
            x = np.concatenate([self._values, x])
            self._values = x if len(x) <= _KEPT else None
        if self._values is None:
            self._widen()
            # A power of two in float64: the quotient is exact, even of a subnormal number.
            bins = np.floor(np.multiply(x, 2.0**-self._exponent, dtype=np.float64)).astype(np.intp)
            self._counts += np.bincount(bins + _BINS, minlength=2 * _BINS)

    def _widen(self) -> None:
        """Merge bins until they reach over everything seen."""
        # For the largest |x| = m 2^e with m < 1, w = 2^e / 4096. Where all is 0 there is no such e.
        mantissa, exponent = math.frexp(max(-self._low, self._high))
        doublings = exponent - (_BINS.bit_length() - 1) - self._exponent
        if mantissa == 0.0 or doublings <= 0:
            return
        merged = np.zeros_like(self._counts)
        np.add.at(merged, (np.arange(-_BINS, _BINS) >> min(doublings, 63)) + _BINS, self._counts)
        self._counts = merged
        self._exponent += doublings

    def cells(self) -> Cells:
        """Return the cells that hold something: single values of no width, or bins, cut off where the values end."""
        if self._values is not None:
            values = np.sort(self._values).astype(np.float64)
            return Cells(values, values, np.ones(len(values), np.int64))
        (filled,) = np.nonzero(self._counts)
        edges = np.clip((filled + np.array([[0], [1]]) - _BINS) * self.width, self._low, self._high)
        return Cells(edges[0], edges[1], self._counts[filled])


def quantile(values: np.ndarray, counts: np.ndarray, q: float) -> float:
    """Return the q-quantile of ascending values that are there so many times each, as `np.quantile` has it."""
    ends = np.cumsum(counts)
    place = q * float(ends[-1] - 1)
    before, after = values[np.searchsorted(ends, [math.floor(place), math.ceil(place)], side="right")]
    return float(before + (after - before) * (place % 1.0))
