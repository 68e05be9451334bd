"""How sparsity grows: at once, or step by step while the model trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """What a pruner asks: the sparsity, a share 0 ... 1, after so many steps of the optimizer."""

    def at(self, step: int, final: float) -> float:
        """Return the sparsity after `step` steps, 0 before the first, on the way to `final`."""

    def is_due(self, step: int) -> bool:
        """Return whether the masks are chosen anew after `step` steps."""


@dataclass(frozen=True)
class OneShot:
    """The whole sparsity at once, before the first step."""

    def at(self, step: int, final: float) -> float:
        """Return the final sparsity."""
        return final

    def is_due(self, step: int) -> bool:
        """Return whether this is before the first step."""
        return step == 0


@dataclass(frozen=True)
class GradualSchedule:
    """Sparsity that grows fast at first, and ever slower: s = final + (initial - final) (1 - t)^3, t from 0 to 1.

    Source: Zhu & Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (2017),
    section 3, equation 1.

    Parameters
    ----------
    begin, end
        The steps of the optimizer between which it grows: t is 0 after `begin` of them, and 1 after `end`.
    every
        The masks are chosen anew after so many steps, and after the last.
    initial
        The sparsity to begin with, a share.

    Raises
    ------
    ValueError
        If it ends before it begins, or a number is out of range.

    Examples
    --------
    >>> schedule = GradualSchedule(begin=0, end=100, every=50)
    >>> [round(schedule.at(step, 0.8), 3) for step in (0, 50, 100, 200)]
    [0.0, 0.7, 0.8, 0.8]
    """

    begin: int
    end: int
    every: int = 100
    initial: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end:
            raise ValueError(
                f"a schedule has to begin at step 0 or later and end after that, got {self.begin} to {self.end}"
            )
        if self.every < 1:
            raise ValueError(f"masks are chosen anew every 1 or more steps, not every {self.every}")
        if not 0 <= self.initial < 1:
            raise ValueError(f"the initial sparsity lies in 0 ... 1, 1 excluded, got {self.initial}")

    def at(self, step: int, final: float) -> float:
        """Return the sparsity after `step` steps."""
        left = 1 - min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return final + (self.initial - final) * left**3

    def is_due(self, step: int) -> bool:
        """Return whether the masks are chosen anew after `step` steps."""
        if not self.begin <= step <= self.end:
            return False
        return (step - self.begin) % self.every == 0 or step == self.end
