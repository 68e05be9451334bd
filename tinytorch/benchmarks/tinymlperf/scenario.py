"""What came out of a scenario: the times of two programs that took turns, in several launches, and their ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinytorch.profiling.timing.comparison import ratios
from tinytorch.profiling.timing.statistics import Estimate, median_interval, quantile_interval, samples_needed

PERCENTILE = 0.9  # of the latency that single-stream states, as in MLPerf
CONFIDENCE = 0.95
_OF_LAUNCHES = 0.9375  # what the smallest and the largest of five are sure of: their median lies between, 15 in 16


class Turns(NamedTuple):
    """A launch: median seconds of each turn, (turns, 2), the submission's first; and of its requests that count."""

    turns: np.ndarray
    requests: np.ndarray

    def shared(self, count: int) -> Turns:
        """Return them by sample, where a request has so many of them."""
        return Turns(self.turns / count, self.requests / count)


@dataclass(frozen=True)
class Scenario:
    """What was measured, launch by launch: seconds of a request, in single-stream of one sample.

    Within a launch the speed-up is the median of the turns' ratios. It differs more from launch to launch than
    within one, so each launch is one sample, and their median counts.
    """

    launches: Sequence[Turns]

    @property
    def rounds(self) -> int:
        """How many turns each had."""
        return sum(len(launch.turns) for launch in self.launches)

    @property
    def requests(self) -> int:
        """How many of the submission's requests count."""
        return sum(len(launch.requests) for launch in self.launches)

    def seconds(self, who: int) -> float:
        """Return the median over launches of a program's median, in seconds: 0 the submission, 1 the reference."""
        return float(np.median([np.median(launch.turns[:, who]) for launch in self.launches]))

    @property
    def speedup(self) -> Estimate:
        """The reference's time over the submission's. Of fewer than five launches, the interval reaches over theirs."""
        found = [ratios(launch.turns, CONFIDENCE)[0] for launch in self.launches]
        logs = [math.log(e.value) for e in found]
        if len(found) >= samples_needed(0.5, _OF_LAUNCHES):
            e = median_interval(logs, _OF_LAUNCHES)
            return Estimate(math.exp(e.value), math.exp(e.low), math.exp(e.high))
        return Estimate(math.exp(np.median(logs)), min(e.low for e in found), max(e.high for e in found))

    @property
    def latency(self) -> Estimate | None:
        """The 90th percentile of the submission's requests, seconds, with its interval; None of fewer than 46."""
        if self.requests < samples_needed(PERCENTILE):
            return None
        return quantile_interval(np.concatenate([one.requests for one in self.launches]), PERCENTILE, CONFIDENCE)
