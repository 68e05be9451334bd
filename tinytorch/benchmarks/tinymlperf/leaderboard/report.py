"""What an evaluator reports of one submission, checked before it is stored; scores are computed, whatever it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinytorch.benchmarks.tinymlperf.scoring import Ratios, score
from tinytorch.profiling.timing.statistics import Estimate


@dataclass(frozen=True)
class Report:
    """The part of a report that is ranked.

    Attributes
    ----------
    task
        Which task it is for.
    quality
        In the task's own unit.
    ratios
        The reference's costs over the submission's, and whether the quality target is met.
    """

    task: str
    quality: float
    ratios: Ratios

    @property
    def passed(self) -> bool:
        """Whether the quality target is met."""
        return self.ratios.passed

    @property
    def score(self) -> Estimate:
        """The score of this task alone, with its interval: 1000 for the reference."""
        return score({self.task: self.ratios}, [self.task]).score

    @property
    def deterministic(self) -> float:
        """The same without the time."""
        return score({self.task: self.ratios}, [self.task]).deterministic

    @classmethod
    def from_json(cls, report: Mapping[str, Any]) -> Report:
        """Read a report; a ValueError names the field that is missing or cannot be."""
        task, passed = report.get("task"), report.get("passed")
        if not (isinstance(task, str) and task):
            raise ValueError("the report's task is no name")
        if not isinstance(passed, bool):
            raise ValueError(f"the report's passed is true or false, not {passed!r}")
        flops, stored, activation = (_positive(report, f"{name}_ratio") for name in ("flops", "bytes", "activation"))
        ratios = Ratios(_interval(report, "speedup"), flops, stored, activation, passed)
        return cls(task, _finite("quality", report.get("quality")), ratios)


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the report's {name} is a finite number, not {value!r}")
    return float(value)


def _positive(report: Mapping[str, Any], name: str) -> float:
    value = _finite(name, report.get(name))
    if value <= 0:
        raise ValueError(f"the report's {name} is above zero, not {value}")
    return value


def _interval(report: Mapping[str, Any], name: str) -> Estimate:
    ends = report.get(name)
    if not (isinstance(ends, list | tuple) and len(ends) == 3):
        raise ValueError(f"the report's {name} is [low, median, high], not {ends!r}")
    low, value, high = (_finite(name, end) for end in ends)
    if not 0 < low <= value <= high:
        raise ValueError(f"the report's {name} is [low, median, high], above zero and in order, not {ends!r}")
    return Estimate(value, low, high)
