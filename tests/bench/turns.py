"""The timer of every run: functions take turns of 20 ms, so that what a turn finds in the caches is its own.

Where there is less than a second in all, as in a trial, turns are shorter.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.profiling.timing.timer import Timer

TURN = 0.02  # seconds


def timer(rng: np.random.Generator, budget: float) -> Timer:
    """Return a timer that takes `budget` seconds."""
    return Timer(budget, block=min(TURN, budget / 50), rng=rng)


def ratio(times: np.ndarray, a: int, b: int) -> float:
    """Return the median over rounds of the time of function a over that of b, from `Timer.rounds`."""
    return math.exp(float(np.median(np.log(times[:, a]) - np.log(times[:, b]))))
