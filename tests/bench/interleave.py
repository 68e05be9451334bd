"""Which of two functions is faster? Interleaved pairs in random order, and what may be said of them.

Timing all of A and then all of B calls equal programs different as soon as the machine changes its pace in between.
Here A and B are timed in pairs, each pair in random order, so that both meet the same machine; the ratio is the
median over pairs, and its interval rests on order statistics alone: no distribution of the noise is assumed.
Source of the interval: David & Nagaraja, "Order statistics" (2003), section 7.1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

Clock = Callable[[], float]

SMALLEST_CLAIM = 0.01  # a median ratio nearer to 1 than this is no difference, however narrow its interval
_FEWEST, _MOST = 9, 400  # rounds


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % interval; `spread` is the interquartile range of the samples, relative to the median."""

    value: float
    low: float
    high: float
    spread: float

    def scaled(self, factor: float) -> Estimate:
        """Return the same in another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.spread)


@dataclass(frozen=True)
class Comparison:
    """The time of `a` over that of `b`, and each alone, in seconds per call."""

    ratio: Estimate
    a: Estimate
    b: Estimate
    pairs: int

    @property
    def differs(self) -> bool:
        """Whether the ratio's interval excludes 1 and its median is at least 1 % away from it."""
        excluded = self.ratio.low > 1.0 or self.ratio.high < 1.0
        return excluded and abs(math.log(self.ratio.value)) >= math.log(1.0 + SMALLEST_CLAIM)

    def __str__(self) -> str:
        r = self.ratio
        text = f"{r.value:.3f} x ({r.low:.3f} to {r.high:.3f}, spread {r.spread:.1%}, {self.pairs} pairs)"
        return text if self.differs else f"no difference: {text}"


def median_interval(samples: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Estimate:
    """Return the median of independent samples and an interval that covers the true one with this confidence.

    Raises
    ------
    ValueError
        If there are too few samples for the confidence: 95 % takes six.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    n = len(ordered)
    # the k-th smallest of n lies above the true median with the chance that fewer than k of n fair coins show heads
    k, tail = 0, 0.0
    while k < n and tail + math.comb(n, k) / 2**n <= (1.0 - confidence) / 2:
        tail += math.comb(n, k) / 2**n
        k += 1
    if k == 0:
        raise ValueError(f"{n} samples are too few for an interval of {confidence:.0%}")
    first, median, third = np.quantile(ordered, (0.25, 0.5, 0.75))
    spread = (third - first) / abs(median) if median else math.inf
    return Estimate(float(median), float(ordered[k - 1]), float(ordered[n - k]), float(spread))


def measure(
    functions: Sequence[Callable[[], object]],
    rng: np.random.Generator,
    *,
    budget: float = 10.0,
    block: float = 0.02,
    clock: Clock = time.perf_counter,
    label: str | None = None,
) -> np.ndarray:
    """Time functions in rounds, each round in random order.

    Parameters
    ----------
    functions
        What is timed. Each is called once before, to warm up.
    rng
        Where the order of each round comes from.
    budget
        Seconds that all rounds together should take, which sets their number: 9 at least, 400 at most.
    block
        A function is called as often as it takes to fill this many seconds, so that the clock's own grain vanishes.
    clock
        Seconds since some moment.
    label
        What the progress bar shows; no bar if None.

    Returns
    -------
    np.ndarray
        Seconds per call: (rounds, functions).
    """
    calls = [_calibrate(f, block, clock) for f in functions]
    pilot = sum(_seconds(f, n, clock) * n for f, n in zip(functions, calls, strict=True))
    rounds = int(min(max(budget / pilot, _FEWEST), _MOST))
    times = np.empty((rounds, len(functions)))
    for row in tqdm(times, desc=label, unit="round", leave=False, disable=label is None):
        for i in rng.permutation(len(functions)):
            row[i] = _seconds(functions[i], calls[i], clock)
    return times


def compare(
    a: Callable[[], object],
    b: Callable[[], object],
    rng: np.random.Generator,
    *,
    check: Callable[[], None],
    budget: float = 10.0,
    block: float = 0.02,
    clock: Clock = time.perf_counter,
    label: str | None = None,
) -> Comparison:
    """Measure the time of `a` over that of `b` in interleaved pairs; parameters as in `measure`.

    `check` runs first and raises if the two do not compute the same: the speed of a wrong answer is not measured.
    """
    check()
    times = measure((a, b), rng, budget=budget, block=block, clock=clock, label=label)
    logs = np.log(times[:, 0]) - np.log(times[:, 1])
    log_ratio = median_interval(logs)
    first, third = np.quantile(logs, (0.25, 0.75))
    value, low, high = (math.exp(x) for x in (log_ratio.value, log_ratio.low, log_ratio.high))
    ratio = Estimate(value, low, high, spread=math.expm1(third - first))
    return Comparison(ratio, median_interval(times[:, 0]), median_interval(times[:, 1]), len(times))


def _seconds(function: Callable[[], object], calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        function()
    return (clock() - start) / calls


def _calibrate(function: Callable[[], object], block: float, clock: Clock) -> int:
    """Return how many calls fill a block."""
    function()
    calls = 1
    while (seconds := _seconds(function, calls, clock)) * calls < block:
        calls = max(calls + 1, min(10 * calls, math.ceil(1.1 * block / seconds))) if seconds > 0 else 10 * calls
    return calls
