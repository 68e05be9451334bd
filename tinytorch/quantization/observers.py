"""Observers: they see values batch by batch, and choose the range that the codes shall reach over.

What they choose depends on the values alone, not on how these were cut into batches or in which order they came, bit
for bit. Their memory does not grow with what they see.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from tinytorch.quantization.affine import Scale, ZeroPoint, code_range, finite_values, qparams_of_range
from tinytorch.quantization.histogram import Histogram, quantile


class Observer(ABC):
    """What observers have in common.

    Parameters
    ----------
    bits, symmetric
        The codes that the range is for: see `code_range`.

    Raises
    ------
    ValueError
        If there are no such codes.
    """

    def __init__(self, bits: int = 8, symmetric: bool = False) -> None:
        code_range(bits, symmetric)
        self.bits, self.symmetric = bits, symmetric
        self.count = 0

    def observe(self, x: np.ndarray) -> None:
        """Take a batch of floats of any shape.

        Raises
        ------
        TypeError
            If x holds no floats.
        ValueError
            If x is empty, or a value is NaN or infinite: the message says how many. Nothing of x is taken then.
        """
        x = finite_values(x).reshape(-1)
        self._add(x)
        self.count += x.size

    def range(self) -> tuple[float, float]:
        """Return low <= 0 <= high, and -high <= 0 <= high if symmetric. A RuntimeError if nothing was observed."""
        if self.count == 0:
            raise RuntimeError("nothing was observed: call observe(x) first")
        low, high = self._range()
        low, high = min(0.0, low), max(0.0, high)  # in this order, -0.0 becomes 0.0
        if self.symmetric:
            high = max(high, -low)
            low = 0.0 - high
        return low, high

    def qparams(self) -> tuple[Scale, ZeroPoint]:
        """Return the scale and zero point of the range. A RuntimeError if nothing was observed."""
        return qparams_of_range(*self.range(), bits=self.bits, symmetric=self.symmetric)

    @abstractmethod
    def _add(self, x: np.ndarray) -> None:
        """Take values (n,), n > 0."""

    @abstractmethod
    def _range(self) -> tuple[float, float]:
        """Return the range; it need not hold 0, or be symmetric."""


class MinMaxObserver(Observer):
    """From the smallest to the largest value: nothing is clipped, and one outlier sets everyone's step."""

    def __init__(self, bits: int = 8, symmetric: bool = False) -> None:
        super().__init__(bits, symmetric)
        self._low, self._high = math.inf, -math.inf

    def _add(self, x: np.ndarray) -> None:
        self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))

    def _range(self) -> tuple[float, float]:
        return self._low, self._high


class _HistogramObserver(Observer):
    def __init__(self, bits: int = 8, symmetric: bool = False) -> None:
        super().__init__(bits, symmetric)
        self.histogram = Histogram()

    def _add(self, x: np.ndarray) -> None:
        self.histogram.add(x)


class PercentileObserver(_HistogramObserver):
    """From one percentile to another: what lies beyond them is clipped.

    Affine codes reach from the percentile 100 - p to the percentile p, symmetric ones over that of abs(x).
    Percentiles are those of `np.quantile`, or less than one bin of the histogram further out.

    Parameters
    ----------
    percentile
        p, above 50 and at most 100, which is min-max; any other is a ValueError.
    """

    def __init__(self, bits: int = 8, symmetric: bool = False, percentile: float = 99.99) -> None:
        super().__init__(bits, symmetric)
        if not 50 < percentile <= 100:
            raise ValueError(f"the percentile must be above 50 and at most 100, got {percentile!r}")
        self.percentile = percentile

    def _range(self) -> tuple[float, float]:
        lower, upper, counts = self.histogram.cells()
        if self.symmetric:
            magnitude = np.maximum(-lower, upper)  # 0 is an edge: no cell has values of both signs
            order = np.argsort(magnitude, kind="stable")
            return 0.0, quantile(magnitude[order], counts[order], self.percentile / 100)
        # Mirrored, the low end is a high one: both are rounded outwards in the same way.
        low = -quantile(-lower[::-1], counts[::-1], self.percentile / 100)
        return low, quantile(upper, counts, self.percentile / 100)


class MSEObserver(_HistogramObserver):
    """The range with the smallest mean squared error: of rounding within it and of clipping beyond it, weighed.

    Up to 8192 values are weighed themselves, more at the centres of the histogram's bins. Then the root mean square
    error exceeds that of no other range that was tried, min-max among them, by more than the width of a bin: a value
    lies within half a bin of its centre, and its distance to the nearest code changes by no more than it moves.

    Sources: Nagel et al., "A white paper on neural network quantization" (2021), section 3.1; Banner et al., "Post
    training 4-bit quantization of convolutional networks for rapid-deployment" (2019), who fit a distribution where
    this counts values.
    """

    def _range(self) -> tuple[float, float]:
        lower, upper, counts = self.histogram.cells()
        return least_squares_range((lower + upper) / 2, counts, bits=self.bits, symmetric=self.symmetric)


def least_squares_range(
    values: np.ndarray, counts: np.ndarray, *, bits: int = 8, symmetric: bool = False
) -> tuple[float, float]:
    """Return the range whose codes lie closest to the values: the smallest sum of counts * error^2.

    Each end of the values' own range is moved towards 0, to a share of where it was. Shares are tried from 1 to 1/215
    in steps of 16 %, and 0, every one of the low end with every one of the high end; then finer ones around the best,
    twice. Symmetric ranges, and those of values of one sign, have but one end to move.

    Parameters
    ----------
    values
        In ascending order (n,), float64.
    counts
        How many there are of each (n,).
    """
    lowest, highest = code_range(bits, symmetric)
    codes = np.arange(lowest, highest + 1)
    low, high = min(float(values[0]), 0.0), max(float(values[-1]), 0.0)
    if symmetric:
        low, high = 0.0, max(-low, high)
    count, total = (np.concatenate([[0.0], np.cumsum(a)]) for a in (counts, counts * values))

    def error(lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        """Return the squared error of each of K ranges, less the sum of squares of the values: (K,)."""
        scale, zero_point = qparams_of_range(-highs if symmetric else lows, highs, bits=bits, symmetric=symmetric)
        levels = np.asarray(scale, np.float64)[:, None] * (codes - np.asarray(zero_point)[:, None])  # (K, codes)
        # Between two levels the middle parts their values. Sums from one middle to the next are differences of sums.
        ends = np.searchsorted(values, (levels[:, 1:] + levels[:, :-1]) / 2)
        ends = np.pad(ends, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(values))))
        return (levels * (levels * np.diff(count[ends]) - 2.0 * np.diff(total[ends]))).sum(axis=1)

    coarse = np.append(2.0 ** (-np.arange(32) / 4), 0.0)
    left, right = (coarse if end else np.ones(1) for end in (low, high))
    for _ in range(3):
        lows, highs = (a.ravel() for a in np.meshgrid(low * left, high * right, indexing="ij"))
        errors = np.where(highs > lows, error(lows, highs), np.inf)
        best = int(errors.argmin())  # the first, which is the widest
        i, j = divmod(best, len(right))
        left, right = _between_neighbours(left, i), _between_neighbours(right, j)
    return (-float(highs[best]) if symmetric else float(lows[best])), float(highs[best])


def _between_neighbours(shares: np.ndarray, i: int) -> np.ndarray:
    """Return finer shares from one neighbour of share i to the other, with share i, in descending order."""
    fine = np.linspace(shares[max(i - 1, 0)], shares[min(i + 1, len(shares) - 1)], 9)
    return np.union1d(fine, shares[i])[::-1]


def qparams_per_channel(
    weight: np.ndarray,
    observer: Callable[..., Observer] = MinMaxObserver,
    axis: int = 0,
    *,
    bits: int = 8,
    symmetric: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales and zero points (C,) that one observer for each channel along `axis` chooses.

    Parameters
    ----------
    weight
        Floats of any shape with such an axis, all finite.
    observer
        What makes one: a class of this module, or any function of `bits` and `symmetric`.

    Raises
    ------
    TypeError
        If the weight holds no floats.
    ValueError
        If it is empty, or a number in it is NaN or infinite.
    """
    scales, zero_points = [], []
    for channel in np.moveaxis(finite_values(weight), axis, 0):
        seen = observer(bits=bits, symmetric=symmetric)
        seen.observe(channel)
        scale, zero_point = seen.qparams()
        scales.append(scale)
        zero_points.append(zero_point)
    return np.array(scales, np.float32), np.array(zero_points, np.int32)
