"""What samples of a time allow to be said, without assuming how its noise is distributed.

Everything here rests on ranks. The number of samples below the true quantile q_p is binomial, whatever the samples'
distribution: that alone gives intervals of quantiles, and how many samples a quantile takes.

Sources: Wilks, "Determination of sample sizes for setting tolerance limits", Annals of Mathematical Statistics 12
(1941); David & Nagaraja, "Order statistics" (2003), section 7.1; Tukey, "Exploratory data analysis" (1977).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Samples = Sequence[float] | np.ndarray

_RISE = 0.01  # a smaller drift is none
_CHANCE = 2.58  # standard deviations that a rank correlation exceeds by chance once in a hundred times


@dataclass(frozen=True)
class Estimate:
    """A number, `value`, and the interval, `low` to `high`, that holds the true one with the confidence asked for.

    All three are in one unit: seconds where it is of a time, none where of a ratio.
    """

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """Return the same in another unit: all three times `factor`."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


class Outliers(NamedTuple):
    """How many samples lie beyond Tukey's fences: 1.5 interquartile ranges beyond the quartiles; severe ones, 3."""

    low_severe: int
    low_mild: int
    high_mild: int
    high_severe: int


@dataclass(frozen=True)
class Rate:
    """How often something happened: `hits` of `trials`."""

    hits: int
    trials: int

    @property
    def value(self) -> float:
        """The share of trials."""
        return self.hits / self.trials

    def interval(self, confidence: float = 0.95) -> Estimate:
        """Return the share with its exact interval (Clopper & Pearson, "Confidence or fiducial limits", 1934)."""
        tail = (1.0 - confidence) / 2
        low = _root(lambda p: self.at_least(p) - tail) if self.hits else 0.0
        high = _root(lambda p: tail - self.at_most(p)) if self.hits < self.trials else 1.0
        return Estimate(self.value, low, high)

    def at_least(self, p: float) -> float:
        """Return the chance of so many hits or more where the true rate is p."""
        return float(binomial_cdf(self.trials, 1.0 - p)[self.trials - self.hits])

    def at_most(self, p: float) -> float:
        """Return the chance of so many hits or fewer where the true rate is p."""
        return float(binomial_cdf(self.trials, p)[self.hits])


def binomial_cdf(n: int, p: float) -> np.ndarray:
    """Return the chance of k hits or fewer in n trials with chance p, 0 < p < 1, for k = 0..n: (n + 1,)."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    log_choices = log_factorial[n] - log_factorial - log_factorial[::-1]
    return np.minimum(np.cumsum(np.exp(log_choices + k * math.log(p) + (n - k) * math.log1p(-p))), 1.0)


@functools.cache
def samples_needed(p: float, confidence: float = 0.95) -> int:
    """Return how many samples the p-quantile takes, 0 < p < 1.

    For the median: as many as its two-sided interval. For others, Wilks' second order: so many that the second
    largest is above the quantile with this confidence (below the median: the second smallest below it), for the
    largest alone is too often an accident.

    Raises
    ------
    ValueError
        If p or the confidence does not lie between 0 and 1: no number would be enough.

    Examples
    --------
    >>> samples_needed(0.99), samples_needed(0.95), samples_needed(0.5)
    (473, 93, 6)
    """
    if not (0 < p < 1 and 0 < confidence < 1):
        raise ValueError(f"p and the confidence lie between 0 and 1, 0.99 for p99: got {p} and {confidence}")
    if p == 0.5:
        return math.ceil(1.0 - math.log2(1.0 - confidence))
    q, n = max(p, 1.0 - p), 2
    while 1.0 - q**n - n * q ** (n - 1) * (1.0 - q) < confidence:
        n += 1
    return n


def quantile_interval(samples: Samples, p: float, confidence: float = 0.95) -> Estimate:
    """Return the p-quantile of independent samples (n,), between two that hold the true one with this confidence.

    Raises
    ------
    ValueError
        If there are fewer samples than `samples_needed`, p or the confidence does not lie between 0 and 1, or a sample
        is not finite.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    n, needed, tail = len(ordered), samples_needed(p, confidence), (1.0 - confidence) / 2
    if n < needed:
        raise ValueError(f"{n} samples are too few for p{100 * p:g} at {100 * confidence:g} %: it takes {needed}")
    if not np.isfinite(ordered[-1]):
        raise ValueError("a sample is not a finite number")
    # The k-th smallest lies above the true quantile if fewer than k samples lie below it; from above, the same.
    below = np.searchsorted(binomial_cdf(n, p), tail, side="right")
    above = np.searchsorted(binomial_cdf(n, 1.0 - p), tail, side="right")
    return Estimate(float(np.quantile(ordered, p)), float(ordered[below - 1]), float(ordered[n - above]))


def median_interval(samples: Samples, confidence: float = 0.95) -> Estimate:
    """Return the median of independent samples (n,) with its interval, in their unit.

    Errors are those of `quantile_interval`: a ValueError if they are too few, and 95 % takes six.
    """
    return quantile_interval(samples, 0.5, confidence)


def outliers(samples: Samples) -> Outliers:
    """Count the samples beyond Tukey's fences."""
    x = np.asarray(samples)
    first, third = np.quantile(x, (0.25, 0.75))
    inner, outer = 1.5 * (third - first), 3.0 * (third - first)
    low, low_severe = np.sum(x < first - inner), np.sum(x < first - outer)
    high, high_severe = np.sum(x > third + inner), np.sum(x > third + outer)
    return Outliers(int(low_severe), int(low - low_severe), int(high - high_severe), int(high_severe))


def drift(samples: Samples) -> float:
    """Return by what share the last third of the samples lies above the first (medians), 0.0 if that is no trend.

    A trend is a change of at least 1 % where samples and their places are correlated in rank (Spearman) more than
    samples in random order are once in a hundred times.
    """
    x = np.asarray(samples, np.float64)
    third = len(x) // 3
    if third == 0 or x.min() == x.max():
        return 0.0
    correlation = np.corrcoef(ranks(x), np.arange(len(x)))[0, 1]
    change = float(np.median(x[-third:]) / np.median(x[:third]) - 1.0)
    trend = abs(correlation) * math.sqrt(len(x) - 1) > _CHANCE
    return change if trend and abs(change) >= _RISE else 0.0


def ranks(x: np.ndarray) -> np.ndarray:
    """Return each one's place in order, equal ones the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _root(rising: Callable[[float], float]) -> float:
    """Return where a function on (0, 1) turns from negative to positive, to the last bit but few."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
