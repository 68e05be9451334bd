"""A clock, what it can tell apart and what reading it costs, and the loop that times calls.

A call that is shorter than the clock's step is timed in a loop: the clock is read before and after. What the reading
and the loop take is measured here, so that it can be subtracted.

Source: Chen & Revels, "Robust benchmarking in noisy environments" (2016), section IV.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

Clock = Callable[[], float]  # seconds since some moment

_READINGS = 1_000_000  # a clock of 16 ms, Windows' coarsest, moves within these
_STEPS = 100
_MOST_CALLS = 10**8
_PRECISION = 1000  # a sample is so many times longer than what the clock may err


@dataclass(frozen=True)
class ClockCost:
    """What a clock can tell apart and what it costs, all in seconds.

    Attributes
    ----------
    resolution
        The smallest step between two readings.
    read
        One reading.
    call
        One turn of the loop, with the call of a Python function that does nothing.
    """

    resolution: float
    read: float = 0.0
    call: float = 0.0

    @classmethod
    def measure(cls, clock: Clock) -> ClockCost:
        """Measure a clock, in some milliseconds. Costs are the least seen: no more is subtracted than surely is there.

        Raises
        ------
        ValueError
            If the clock stands still.
        """
        resolution = _resolution(clock)
        read = min(time_calls(_nothing, 0, clock) for _ in range(100))
        calls = 1000
        loop = min(time_calls(_nothing, calls, clock) for _ in range(20))
        return cls(resolution, read, max(loop - read, 0.0) / calls)

    @property
    def shortest_sample(self) -> float:
        """Seconds that a sample must last for the clock's step and reading to be a thousandth of it."""
        return _PRECISION * max(self.resolution, self.read)

    def per_call(self, elapsed: float, calls: int) -> float:
        """Return the seconds of one call, of those that the loop took; never less than the clock could have seen."""
        return max(elapsed - self.read - calls * self.call, self.resolution) / calls


def time_calls(function: Callable[[], object], calls: int, clock: Clock) -> float:
    """Return the seconds that so many calls take, reading the clock and the loop included.

    Python's garbage collector rests meanwhile, as in `timeit`: its pauses come after calls that did not cause them.
    Afterwards it goes on as before, so that the garbage of samples is collected between them.

    Raises
    ------
    ValueError
        If the clock went backwards.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        turns = repeat(None, calls)
        start = clock()
        for _ in turns:
            function()
        elapsed = clock() - start
    finally:
        if collects:
            gc.enable()
            _collect_if_due()
    if elapsed < 0:
        raise ValueError(f"the clock went back by {-elapsed:g} s: take one that cannot, such as time.perf_counter")
    return elapsed


def _collect_if_due() -> None:
    """Do what Python may put off until too late: from 3.12 on it collects at a jump back, and then may not again."""
    counts, limits = gc.get_count(), gc.get_threshold()
    if 0 < limits[0] < counts[0]:
        gc.collect(max(generation for generation in range(3) if counts[generation] > limits[generation]))


def more_calls(calls: int, elapsed: float, wanted: float) -> int:
    """Return how many calls may last as long as is wanted, when so many lasted too short.

    Raises
    ------
    ValueError
        If the clock moved too little for any number of calls.
    """
    if calls >= _MOST_CALLS:
        raise ValueError(f"{calls} calls lasted {elapsed:g} s by this clock: does it count seconds, and do they move?")
    return max(calls + 1, min(10 * calls, math.ceil(1.1 * calls * wanted / elapsed) if elapsed > 0 else 10 * calls))


def _nothing() -> None:
    pass


def _resolution(clock: Clock) -> float:
    smallest, steps, before = math.inf, 0, clock()
    for _ in range(_READINGS):
        now = clock()
        if now > before:
            smallest, steps = min(smallest, now - before), steps + 1
            if steps == _STEPS:
                break
        before = now
    if not steps:
        raise ValueError(f"the clock stood still for {_READINGS} readings: take another, such as time.perf_counter")
    return smallest
