"""The score: how much better than the reference, by four ratios to it that no machine's speed is part of.

For each task, with ratios of the reference's cost over the submission's, each clipped to [1/32, 32]:

    ln q = 0.5 ln(speed-up) + 0.2 ln(FLOPs ratio) + 0.15 ln(stored bytes ratio) + 0.15 ln(peak activation ratio)

The score is 1000 exp(mean of ln q over all tasks), so that the reference has 1000. A task that is missing, or below its
quality target, counts with q = 1/32, the least that a passing one can have: leaving a task out never pays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tinytorch.profiling.timing.statistics import Estimate

WEIGHTS = {"speedup": 0.5, "flops": 0.2, "bytes": 0.15, "activation": 0.15}
LIMIT = 32.0
FLOOR = 1 / LIMIT
REFERENCE = 1000.0


@dataclass(frozen=True)
class Ratios:
    """The reference's costs over a submission's, for one task: above 1, the submission is better.

    Attributes
    ----------
    speedup
        Of times, with its interval: measured, so it differs from run to run.
    flops, bytes, activation
        Of floating-point operations for a sample, bytes stored, and bytes of activations at their peak: counted.
    passed
        Whether the quality target is met; if not, the rest does not count.

    Raises
    ------
    ValueError
        If a ratio is not a positive number.
    """

    speedup: Estimate
    flops: float
    bytes: float
    activation: float
    passed: bool = True

    def __post_init__(self) -> None:
        s = self.speedup
        for name, ratio in (("speedup", s.low), ("speedup", s.value), ("speedup", s.high), *self._counted().items()):
            if not (math.isfinite(ratio) and ratio > 0):
                raise ValueError(f"{name} is the ratio of two costs, a positive number, not {ratio}")
        if not s.low <= s.value <= s.high:
            raise ValueError(f"the speed-up {s.value} does not lie in its interval, {s.low} to {s.high}")

    def _counted(self) -> dict[str, float]:
        return {"flops": self.flops, "bytes": self.bytes, "activation": self.activation}

    def ln_q(self, speedup: float) -> float:
        """Return ln q with this speed-up."""
        if not self.passed:
            return math.log(FLOOR)
        return WEIGHTS["speedup"] * _clipped_log(speedup) + self.ln_counted()

    def ln_counted(self) -> float:
        """Return the part of ln q that is counted: without the time."""
        if not self.passed:
            return (1 - WEIGHTS["speedup"]) * math.log(FLOOR)
        return math.fsum(WEIGHTS[name] * _clipped_log(ratio) for name, ratio in self._counted().items())


@dataclass(frozen=True)
class Score:
    """A score, 1000 for the reference.

    Attributes
    ----------
    score
        With its interval: that of the speed-ups, all at their lower or all at their upper ends.
    deterministic
        Without the time, rounded to two decimals: the same for everybody who counts.
    """

    score: Estimate
    deterministic: float


def score(results: Mapping[str, Ratios | None], tasks: Collection[str]) -> Score:
    """Return the score over `tasks`; one without a result counts at the floor.

    Raises
    ------
    ValueError
        If there are no tasks, or a result is of none of them.
    """
    if not tasks:
        raise ValueError("a score is a mean over tasks: there are none")
    if unknown := sorted(set(results) - set(tasks)):
        raise ValueError(f"no tasks of this competition: {', '.join(unknown)}; it has {', '.join(sorted(tasks))}")
    found = [results.get(task) for task in sorted(tasks)]

    def at(end: str) -> float:
        floor = math.log(FLOOR)
        logs = [floor if r is None else r.ln_q(getattr(r.speedup, end)) for r in found]
        return REFERENCE * math.exp(math.fsum(logs) / len(logs))

    counted_floor = (1 - WEIGHTS["speedup"]) * math.log(FLOOR)
    counted = math.fsum(counted_floor if r is None else r.ln_counted() for r in found) / len(found)
    return Score(Estimate(at("value"), at("low"), at("high")), round(REFERENCE * math.exp(counted), 2))


def _clipped_log(ratio: float) -> float:
    return math.log(min(max(ratio, 1 / LIMIT), LIMIT))
