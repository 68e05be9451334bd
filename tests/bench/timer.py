"""How far the timer can be trusted: its self-test, published. Run `19_timer`:

* `false_positives`: share of equal things that `Timer.compare` calls different, in percent;
* `false_positives_naive`, `false_positives_naive_ranks`: the same of all A, then all B, by a t-interval of the
  means and by ranks;
* `found`: share of true differences of 2 % that `Timer.compare` finds;
* `clock`, `loop`: nanoseconds that the timer subtracts: from each sample for reading the clock, from each call for the
  loop around it.
"""

from __future__ import annotations

import numpy as np

from tests.bench import launches, training
from tests.bench.training import Rows, row
from tinytorch.profiling.self_test import FALSE_POSITIVES, FOUND
from tinytorch.profiling.timing.clock import ClockCost
from tinytorch.profiling.timing.statistics import median_interval
from tinytorch.profiling.timing.timer import Timer

_EACH = 0.25  # seconds of one comparison


def timer_19(rng: np.random.Generator, budget: float) -> Rows:
    """Make as many trials as there is time for: each of three comparisons."""
    timer = Timer(_EACH, rng=rng)
    result = timer.self_test(max(int(budget / (3 * _EACH)), 2), rng)
    wrong, found, means, ranks = (
        rate.interval().scaled(100)
        for rate in (
            result.false_positives,
            result.found,
            result.naive_false_positives,
            result.naive_ranks_false_positives,
        )
    )
    blocks = "Equal functions called different by all A, then all B"
    most, least = 100 * FALSE_POSITIVES, 100 * FOUND
    wrong_aim = f"aim at most {most:g}: {training.verdict(wrong, most)}"
    found_aim = f"aim at least {least:g}: {launches.verdict(found.low, found.high, least)}"
    trials = f"{result.found.trials} trials of {_EACH:g} s"
    costs = [ClockCost.measure(timer.clock) for _ in range(21)]
    clock, loop = (median_interval(x).scaled(1e9) for x in ([c.read for c in costs], [c.call for c in costs]))
    return {
        "false_positives": row(
            wrong, "%", f"Equal functions called different by Timer.compare, {trials} ({wrong_aim})"
        ),
        "false_positives_naive": row(means, "%", f"{blocks}, and a t-interval of the means, {trials}"),
        "false_positives_naive_ranks": row(ranks, "%", f"{blocks}, and ranks, {trials}"),
        "found": row(found, "%", f"Differences of 2 % found by Timer.compare, {trials} ({found_aim})"),
        "clock": row(clock, "ns", "Subtracted by the timer from each sample: reading the clock"),
        "loop": row(loop, "ns", "Subtracted by the timer from each call: the loop around it"),
    }
