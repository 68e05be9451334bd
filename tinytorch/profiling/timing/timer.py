"""Time functions on a machine that others use too.

Timing all of A and then all of B calls equal things different as soon as the machine changes its pace in between.
Here functions take turns in rounds of random order, so that all meet the same machine, and what is said of them rests
on ranks alone: no distribution of the noise is assumed.

Sources: Georges, Buytaert & Eeckhout, "Statistically rigorous Java performance evaluation" (2007); Kalibera & Jones,
"Rigorous benchmarking in reasonable time" (2013); Chen & Revels, "Robust benchmarking in noisy environments" (2016).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.kernels.progress import progress_bar
from tinytorch.profiling.timing.clock import Clock, ClockCost, more_calls, time_calls
from tinytorch.profiling.timing.comparison import Comparison, ratios
from tinytorch.profiling.timing.environment import Environment
from tinytorch.profiling.timing.measurement import Measurement
from tinytorch.profiling.timing.statistics import samples_needed

if TYPE_CHECKING:
    from tinytorch.profiling.self_test import SelfTest

Timed = Callable[[], object]

_MOST_SAMPLES = 100_000
_FEWEST_ROUNDS = 9
# Seconds of one function's turn in a round. A core that programs share changes hands every few milliseconds, which must
# hit less than half of the pairs of turns for their median not to mind.
_TURN = 2.5e-4
_NARROW = 0.008  # a ratio's interval at 99.9 %, high over low: about 0.005 at 95 %, which decides a difference of 1 %
_FIRST_LOOK = 30  # rounds
_SOONEST = 0.1  # of the budget: what disturbs a machine comes and goes
_PATIENCE = 10  # samples without a new best
_WARMUP = 0.25  # of the budget, at most


class Timer:
    """Measure one function, or compare several.

    A call counts as it is made from Python, less what the loop around it takes. Python's garbage collector rests during
    each sample and works between them.

    Parameters
    ----------
    budget
        Seconds that a measurement or comparison takes, at most a quarter more with its warm-up; a slow function takes
        longer, for there is no interval of fewer than 6 samples at 95 %.
    confidence
        Of all intervals.
    block
        Seconds that a sample lasts at least. By default, in `measure`, a thousand times what the clock can tell apart,
        so that a sample is one call where that is possible; in comparisons, a quarter of a millisecond at least.
    clock
        Seconds since some moment.
    rng
        Where the order of rounds comes from; a new one by default.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        If budget or block is no positive finite number, the confidence does not lie between 0 and 1, or, while it
        measures, the clock goes back.

    Examples
    --------
    >>> m = Timer(budget=0.01).measure(lambda: sum(range(1000)))
    >>> 0 < m.interval().low <= m.median <= m.interval().high
    True
    """

    def __init__(
        self,
        budget: float = 1.0,
        confidence: float = 0.95,
        *,
        block: float | None = None,
        clock: Clock = time.perf_counter,
        rng: np.random.Generator | None = None,
        progress: bool = False,
    ) -> None:
        if not (math.isfinite(budget) and budget > 0):
            raise ValueError(f"the budget is {budget}: it is a positive number of seconds")
        if block is not None and not (math.isfinite(block) and block > 0):
            raise ValueError(f"block is {block}: it is a positive number of seconds, or None")
        if not 0 < confidence < 1:
            raise ValueError(f"the confidence is {confidence}: it lies between 0 and 1, 0.95 for 95 %")
        self.budget, self.confidence, self.block, self.clock, self.progress = budget, confidence, block, clock, progress
        self.rng = np.random.default_rng() if rng is None else rng

    @cached_property
    def cost(self) -> ClockCost:
        """What the clock can tell apart and what it costs, measured when first asked for."""
        return ClockCost.measure(self.clock)

    def measure(self, function: Timed, *, at_least: int = 0, label: str | None = None) -> Measurement:
        """Time one function until the budget is spent, or 100,000 samples are taken.

        Parameters
        ----------
        function
            What is timed, called without arguments. An exception in it is passed on.
        at_least
            Samples to take, whatever the budget: 473 for p99 at 95 %.
        label
            What the result is called; the function's name by default.

        Raises
        ------
        TypeError
            If it cannot be called.
        """
        name = label or str(getattr(function, "__name__", type(function).__name__))  # a partial has no name
        _callable(name, function)
        calls, warmup = self._warm_up(function, self.block or self.cost.shortest_sample, _WARMUP * self.budget)
        least = max(at_least, samples_needed(0.5, self.confidence))
        samples: list[float] = []
        start = self.clock()
        with self._bar(name) as bar:
            while len(samples) < least or self.clock() - start < self.budget:
                samples.append(self.cost.per_call(time_calls(function, calls, self.clock), calls))
                self._advance(bar, start)
                if len(samples) >= max(least, _MOST_SAMPLES):
                    break
        environment = Environment.current()
        return Measurement(name, np.array(samples), calls, warmup, self.cost, self.confidence, environment)

    def compare(
        self, functions: Mapping[str, Timed], *, check: Callable[[], object] | None = None, label: str | None = None
    ) -> Comparison:
        """Compare functions with the first, the baseline.

        `compare({"a": f, "b": g}).ratio` is the time of b over that of a: below 1, b is faster than a.

        Parameters
        ----------
        functions
            Two or more, by name, each called without arguments. An exception in one is passed on.
        check
            Runs first, to make sure that all compute the same: the speed of a wrong answer is not measured. It raises,
            or returns False.
        label
            What the progress bar shows.

        Raises
        ------
        AssertionError
            If the check returns False.
        ValueError
            If there are fewer than two functions.
        TypeError
            If one cannot be called.
        """
        if len(functions) < 2:
            raise ValueError('nothing to compare: give two functions or more, {"a": f, "b": g}')
        for name, function in functions.items():
            _callable(name, function)
        if check is not None and (result := check()) is not None and not result:
            raise AssertionError(f"the check says that {', '.join(functions)} do not compute the same: not timed")
        times = self._rounds(list(functions.values()), label or ", ".join(functions), self._narrow)
        return Comparison(tuple(functions), times, self.confidence, self.cost, Environment.current())

    def rounds(self, functions: Sequence[Timed], *, label: str | None = None) -> np.ndarray:
        """Time functions in rounds until the budget is spent, each round in random order.

        Returns
        -------
        np.ndarray
            Seconds per call: (rounds, functions), 9 rounds at least.
        """
        return self._rounds(functions, label or "rounds", lambda times: False)

    def self_test(self, trials: int = 100, rng: np.random.Generator | None = None) -> SelfTest:
        """Measure, on this machine, how often `compare` calls equal things different, and finds what differs by 2 %.

        See `tinytorch.profiling.self_test`. It takes up to three budgets for each trial.
        """
        from tinytorch.profiling.self_test import self_test

        return self_test(self, trials, self.rng if rng is None else rng)

    def _rounds(self, functions: Sequence[Timed], label: str, enough: Callable[[np.ndarray], bool]) -> np.ndarray:
        cost, clock, k = self.cost, self.clock, len(functions)
        turn, limit = self.block or max(_TURN, cost.shortest_sample), _WARMUP * self.budget / k
        calls = [self._warm_up(function, turn, limit)[0] for function in functions]
        # What a turn's first call takes longer is shared among all: equal functions need equal turns to be equal.
        calls = [calls[0] if 0.5 < c / calls[0] < 2.0 else c for c in calls]
        each = 1.0 - (1.0 - self.confidence) / max(k - 1, 1)
        least = max(_FEWEST_ROUNDS, samples_needed(0.5, each))
        times: list[np.ndarray] = []
        start, look = clock(), max(_FIRST_LOOK, 2 * least)
        with self._bar(label) as bar:
            while len(times) < least or clock() - start < self.budget:
                row = np.empty(k)
                for i in self.rng.permutation(k):
                    row[i] = cost.per_call(time_calls(functions[i], calls[i], clock), calls[i])
                times.append(row)
                self._advance(bar, start)
                if len(times) >= look and clock() - start >= _SOONEST * self.budget:
                    if enough(np.array(times)):
                        break
                    look = math.ceil(1.25 * len(times))
        return np.array(times)

    def _narrow(self, times: np.ndarray) -> bool:
        """Whether more rounds are of no use.

        Only how wide the intervals are may end a comparison, never where they lie: who stops as soon as 1 is outside
        looks often enough to see it there by accident, and calls equal things different. Even the width is narrow by
        accident now and then, that of a surer interval more seldom: it keeps what is promised of the other.
        """
        surer = 1.0 - (1.0 - self.confidence) / 50
        return all(r.high / r.low <= 1.0 + _NARROW for r in ratios(times, surer))

    def _warm_up(self, function: Timed, block: float, limit: float) -> tuple[int, int]:
        """Call until the time no longer falls, or `limit` seconds have passed.

        Returns how many calls fill a block, and how many were made. The first call, which may compile, stays out of it.
        """
        function()
        calls, total, best, waited, start = 1, 1, math.inf, 0, self.clock()
        while True:
            elapsed = time_calls(function, calls, self.clock)
            total += calls
            if elapsed < block:  # now, or already: what another program stopped seems longer than it is
                calls = more_calls(calls, elapsed, block)
                continue
            if elapsed / calls < 0.99 * best:
                best, waited = elapsed / calls, 0
            else:
                waited += 1
            if waited >= _PATIENCE or self.clock() - start >= limit:
                return calls, total

    def _bar(self, label: str) -> Any:
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
        return progress_bar(total=self.budget, desc=label, disable=not self.progress, bar_format=form)

    def _advance(self, bar: Any, start: float) -> None:
        bar.update(min(self.clock() - start, self.budget) - bar.n)  # slow functions take longer than the budget


def _callable(name: str, function: object) -> None:
    if not callable(function):
        raise TypeError(f"{name} is no function to time but a {type(function).__name__}: write lambda: ...")
