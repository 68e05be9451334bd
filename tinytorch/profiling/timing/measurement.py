"""What a timer found out about one function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinytorch.profiling.table import Column, Table, seconds, share
from tinytorch.profiling.timing import statistics
from tinytorch.profiling.timing.clock import ClockCost
from tinytorch.profiling.timing.environment import Environment
from tinytorch.profiling.timing.statistics import Estimate, Outliers

_SHOWN = (5, 25, 50, 75, 95, 99)


@dataclass(frozen=True, eq=False)
class Measurement:
    """The time of one call of a function, many times over. It prints itself, and shows as a table in a notebook.

    Attributes
    ----------
    name
        The function's.
    samples
        Seconds per call, in the order of their measurement: (samples,).
    calls
        A sample is the mean of so many calls: more than one where a call is too short for the clock. Percentiles are
        of these means then, and single slow calls vanish in them.
    warmup
        Calls that went before and do not count.
    clock
        What the clock can tell apart and what it costs; reading it and the loop around the calls are subtracted.
    confidence
        Of all intervals.
    environment
        What was measured on.
    """

    name: str
    samples: np.ndarray
    calls: int
    warmup: int
    clock: ClockCost
    confidence: float
    environment: Environment

    @property
    def median(self) -> float:
        """Seconds per call."""
        return float(np.median(self.samples))

    @property
    def iqr(self) -> float:
        """Seconds between the quartiles: the middle half of the samples lies so close together."""
        first, third = np.quantile(self.samples, (0.25, 0.75))
        return float(third - first)

    def percentile(self, p: float) -> float:
        """Return the time that p percent of the calls stay below.

        Raises
        ------
        ValueError
            If p is not between 0 and 100, or there are too few samples for it: p99 at 95 % takes 473. As in MLPerf's
            rules for latencies, a percentile is not told from the few samples that happen to lie beyond it.
        """
        return self.interval(p).value

    def interval(self, p: float = 50.0) -> Estimate:
        """Return a percentile, the median by default, with its interval from order statistics; raises as `percentile`.

        It takes the samples for independent, which they are not where the time drifts.
        """
        if not 0.0 < p < 100.0:
            raise ValueError(f"a percentile lies between 0 and 100, got {p}: the extremes are samples.min() and .max()")
        needed = statistics.samples_needed(p / 100, self.confidence)
        if len(self.samples) < needed:
            raise ValueError(
                f"p{p:g} at {100 * self.confidence:g} % takes {needed} samples, there are {len(self.samples)}: "
                f"measure(..., at_least={needed})"
            )
        return statistics.quantile_interval(self.samples, p / 100, self.confidence)

    @cached_property
    def outliers(self) -> Outliers:
        """How many samples lie beyond Tukey's fences. They stay in: the median does not mind, percentiles need them."""
        return statistics.outliers(self.samples)

    @cached_property
    def drift(self) -> float:
        """By what share the time rose (fell, if negative) from the first third to the last; 0.0 without a trend."""
        return statistics.drift(self.samples)

    @property
    def overhead(self) -> float:
        """Seconds that were subtracted from each call: its part of reading the clock, and of the loop."""
        return self.clock.read / self.calls + self.clock.call

    def table(self) -> Table:
        """Return the percentiles that the samples allow, with their intervals, and below them what to know."""
        rows: list[tuple[str, float, str]] = [("fastest", float(self.samples.min()), "")]
        for p in _SHOWN:
            if len(self.samples) >= statistics.samples_needed(p / 100, self.confidence):
                e = self.interval(p)
                rows.append(("median" if p == 50 else f"p{p}", e.value, f"{seconds(e.low)} to {seconds(e.high)}"))
        rows.append(("slowest", float(self.samples.max()), ""))
        interval = Column(f"{100 * self.confidence:g} % interval", words=True)
        columns = (Column("", words=True), Column("time of a call", seconds), interval)
        return Table(self.name, columns, rows, self._notes())

    def _notes(self) -> list[str]:
        o, clock = self.outliers, self.clock
        each = "each of one call" if self.calls == 1 else f"each the mean of {self.calls} calls"
        notes = [
            f"{len(self.samples)} samples, {each}, after {self.warmup} calls to warm up; "
            f"interquartile range {seconds(self.iqr)} ({share(self.iqr / self.median)})",
            f"outliers: {o.high_mild} high, {o.high_severe} very high, {o.low_mild} low, {o.low_severe} very low",
            f"subtracted from each call: {seconds(self.overhead)} (of {seconds(clock.read)} to read the clock and "
            f"{seconds(clock.call)} to loop); the clock's step is {seconds(clock.resolution)}",
            str(self.environment),
        ]
        if self.median < clock.call:
            notes.insert(0, "Too short: a call takes less than the loop around it, and what is left of it is uncertain")
        if self.drift:
            change = f"{'rose' if self.drift > 0 else 'fell'} by {share(abs(self.drift))}"
            notes.insert(0, f"Drift: from the first third of the samples to the last the time {change}: repeat it")
        return notes

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
