"""Which function is faster, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tinytorch.profiling.table import Column, Table, seconds
from tinytorch.profiling.timing.clock import ClockCost
from tinytorch.profiling.timing.environment import Environment
from tinytorch.profiling.timing.statistics import Estimate, median_interval

Verdict = Literal["faster", "slower", "equal", "undecided"]

SMALLEST_CLAIM = (
    0.01  # what differs by less is not called different, however sure: the layout of memory alone does that
)


@dataclass(frozen=True)
class Pair:
    """One function against the baseline.

    Attributes
    ----------
    name, baseline
        Of the two functions.
    ratio
        The time of `name` over the time of `baseline`: below 1, `name` is faster.
    """

    name: str
    baseline: str
    ratio: Estimate

    @property
    def speedup(self) -> Estimate:
        """How many times as fast as the baseline: 1 / ratio. Above 1, `name` is faster."""
        return Estimate(1.0 / self.ratio.value, 1.0 / self.ratio.high, 1.0 / self.ratio.low)

    @property
    def verdict(self) -> Verdict:
        """What may be said of `name` against `baseline`.

        * "faster", "slower": the interval excludes 1, and the ratio is at least 1 % away from it;
        * "equal": the whole interval lies within 1 % of 1;
        * "undecided": neither.
        """
        value, low, high = (math.log(x) for x in (self.ratio.value, self.ratio.low, self.ratio.high))
        claim = math.log1p(SMALLEST_CLAIM)
        if (low > 0 or high < 0) and abs(value) >= claim:
            return "slower" if value > 0 else "faster"
        return "equal" if -claim <= low and high <= claim else "undecided"

    def __str__(self) -> str:
        takes = f"takes {self.ratio.value:.4g} of the time of {self.baseline} ({_words(self.ratio)})"
        if self.verdict == "faster":
            s = self.speedup
            return f"{self.name} is faster: {s.value:.4g} times as fast as {self.baseline} ({_words(s)})"
        if self.verdict == "slower":
            takes = f"takes {self.ratio.value:.4g} times as long as {self.baseline} ({_words(self.ratio)})"
            return f"{self.name} is slower: it {takes}"
        if self.verdict == "equal":
            return f"{self.name} and {self.baseline} are equal within 1 %: {self.name} {takes}"
        return f"{self.name} against {self.baseline} is undecided: it {takes}; a larger budget would tell"


@dataclass(frozen=True, eq=False)
class Comparison(Mapping[str, Pair]):
    """Functions timed side by side; `comparison["b"]` is b against the first function, the baseline.

    A KeyError if b was not compared. `ratio`, `speedup` and `verdict` are for two functions: of more, they are a
    ValueError.

    Attributes
    ----------
    names
        The functions, the baseline first.
    times
        Seconds per call: (rounds, functions). The functions of a round met the same machine.
    confidence
        That all ratios lie within their intervals, together.
    clock
        What the clock can tell apart and what it costs; reading it and the loop around the calls are subtracted.
    environment
        What was measured on.
    """

    names: tuple[str, ...]
    times: np.ndarray
    confidence: float
    clock: ClockCost
    environment: Environment

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """Every function but the baseline, against it."""
        names, baseline = self.names[1:], self.names[0]
        return {
            name: Pair(name, baseline, e) for name, e in zip(names, ratios(self.times, self.confidence), strict=True)
        }

    def __getitem__(self, name: str) -> Pair:
        if name not in self.pairs:
            raise KeyError(f"{name!r} was not compared with {self.names[0]!r}: there is {', '.join(self.pairs)}")
        return self.pairs[name]

    def __iter__(self) -> Any:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def ratio(self) -> Estimate:
        """Of two functions, the time of the second over that of the first."""
        return self._only.ratio

    @property
    def speedup(self) -> Estimate:
        """Of two functions, how many times as fast as the first the second is."""
        return self._only.speedup

    @property
    def verdict(self) -> Verdict:
        """Of two functions, what the second is against the first: see `Pair.verdict`."""
        return self._only.verdict

    @property
    def _only(self) -> Pair:
        if len(self.names) != 2:
            raise ValueError(f"{len(self.names)} functions were compared: ask for one, comparison[{self.names[1]!r}]")
        return self.pairs[self.names[1]]

    def seconds(self, name: str) -> Estimate:
        """Return the median time of one function, the baseline too, with its interval: seconds per call.

        A KeyError if there is none of that name.
        """
        if name not in self.names:
            raise KeyError(f"{name!r} was not timed: there is {', '.join(self.names)}")
        return median_interval(self.times[:, self.names.index(name)], self.confidence)

    def table(self) -> Table:
        """Return each function's time, its ratio to the baseline and the verdict."""
        first = self.names[0]
        rows: list[tuple[str, float, str, str, str]] = [(first, self.seconds(first).value, "1", "", "baseline")]
        for name, pair in self.pairs.items():
            ratio = f"{pair.ratio.value:.4g}"
            rows.append((name, self.seconds(name).value, ratio, _words(pair.ratio), pair.verdict))
        columns = (
            Column("", words=True),
            Column("time of a call", seconds),
            Column(f"over that of {first}"),
            Column(f"{100 * self.confidence:g} % interval", words=True),
            Column("verdict", words=True),
        )
        notes = [*map(str, self.pairs.values()), f"{len(self.times)} rounds in random order", str(self.environment)]
        if min(row[1] for row in rows) < self.clock.call:
            notes.insert(0, "Too short: a call takes less than the loop around it, and what is left of it is uncertain")
        return Table(f"Compared with {first}", columns, rows, notes)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def ratios(times: np.ndarray, confidence: float) -> list[Estimate]:
    """Return the time of each function over that of the first, (rounds, functions): medians of the rounds' ratios.

    The intervals hold the true ratios with this confidence all together (Bonferroni), so that more comparisons do not
    find more differences where there are none.
    """
    logs = np.log(times[:, 1:] / times[:, :1])
    each = 1.0 - (1.0 - confidence) / logs.shape[1]
    found = (median_interval(column, each) for column in logs.T)
    return [Estimate(math.exp(e.value), math.exp(e.low), math.exp(e.high)) for e in found]


def _words(estimate: Estimate) -> str:
    return f"{estimate.low:.4g} to {estimate.high:.4g}"
