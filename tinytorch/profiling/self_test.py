"""Does the timer keep its promise on this machine? `python -m tinytorch.profiling.self_test [--quick]`.

Equal things are compared, and things of which one does exactly 2 % more of the same work. Promised: at most 5 % of the
equal ones are called different, and at least 90 % of the others are found. For contrast, equal things are also timed
the way it is mostly done: all of A, then all of B; once with a t-interval of the difference of means, once with ranks,
which like ours mind no outliers: what they get wrong is the order alone.

A promise counts as refuted if what was seen happens once in a thousand times where it is kept: so the command can run
on a noisy machine and fails there for a reason.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple

import numpy as np

from tinytorch.kernels.progress import progress_bar
from tinytorch.profiling.table import Column, Table, share
from tinytorch.profiling.timing.statistics import Rate, ranks
from tinytorch.profiling.timing.timer import Timed, Timer

FALSE_POSITIVES = 0.05  # promised at most
FOUND = 0.90  # promised at least, of true differences of 2 %
UNITS = 50  # of work; a 51st is 2 % more
_REFUTED = 0.001
_TWO_SIDED = 1.96  # standard deviations, for 95 %

Workload = Callable[[int], Timed]  # units of work -> a function that does them


class Trial(NamedTuple):
    """Whether something was called different, in one trial of each kind."""

    equal: bool
    more: bool
    naive: bool
    naive_ranks: bool


@dataclass(frozen=True)
class SelfTest:
    """How often `Timer.compare` was right on this machine.

    Attributes
    ----------
    false_positives
        Equal things that were called faster or slower.
    found
        True differences of 2 % that were called so, in the right direction.
    naive_false_positives, naive_ranks_false_positives
        Equal things that all A, then all B call different at 95 %: by a t-interval of the means, and by ranks.
    """

    false_positives: Rate
    found: Rate
    naive_false_positives: Rate
    naive_ranks_false_positives: Rate

    @classmethod
    def of(cls, trials: list[Trial]) -> SelfTest:
        """Count."""
        return cls(*(Rate(sum(column), len(trials)) for column in zip(*trials, strict=True)))

    @property
    def refuted(self) -> list[str]:
        """The promises that this machine refutes, in words; none of them is what one wants."""
        refuted = []
        if self.false_positives.at_least(FALSE_POSITIVES) <= _REFUTED:
            refuted.append(f"more than {share(FALSE_POSITIVES)} of equal things are called different")
        if self.found.at_most(FOUND) <= _REFUTED:
            refuted.append(f"less than {share(FOUND)} of differences of 2 % are found")
        return refuted

    def table(self) -> Table:
        """Return the rates with their exact 95 % intervals."""
        rows = []
        for what, rate, promise in (
            ("equal, called different", self.false_positives, f"at most {share(FALSE_POSITIVES)}"),
            ("2 % more, found", self.found, f"at least {share(FOUND)}"),
            ("equal, called different by all A, then all B, means", self.naive_false_positives, ""),
            ("equal, called different by all A, then all B, ranks", self.naive_ranks_false_positives, ""),
        ):
            interval = rate.interval()
            words = f"{share(interval.low)} to {share(interval.high)}"
            rows.append((what, f"{rate.hits} of {rate.trials}", rate.value, words, promise))
        columns = (
            Column("", words=True),
            Column("trials"),
            Column("rate", share),
            Column("95 % interval", words=True),
            Column("promised", words=True),
        )
        notes = [f"Refuted: {text}" for text in self.refuted] or ["The promises are kept, as far as these trials tell."]
        return Table("Self-test of Timer.compare", columns, rows, notes)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def self_test(timer: Timer, trials: int, rng: np.random.Generator, workload: Workload | None = None) -> SelfTest:
    """Make so many trials and count.

    Parameters
    ----------
    timer
        Compares; its budget is that of one comparison.
    trials
        Of each kind; they take turns.
    rng
        Which of two comes first, and which is the baseline.
    workload
        Makes functions of 50 and of 51 units of work; by default square roots of an array that stays in the cache.
    """
    if trials < 1:
        raise ValueError(f"a self-test takes one trial or more, got {trials}")
    return SelfTest.of(list(_trials(timer, trials, rng, workload or square_roots())))


def _trials(timer: Timer, trials: int, rng: np.random.Generator, workload: Workload) -> Iterator[Trial]:
    inner = copy(timer)
    inner.progress = False  # one bar, for the trials
    for _ in progress_bar(range(trials), desc="self-test", unit="trial", disable=not timer.progress):
        equal = inner.compare({"a": workload(UNITS), "b": workload(UNITS)}).verdict
        first_has_more = bool(rng.integers(2))
        sides = {"a": workload(UNITS + first_has_more), "b": workload(UNITS + (not first_has_more))}
        more = inner.compare(sides).verdict
        found = more == ("faster" if first_has_more else "slower")
        yield Trial(equal in ("faster", "slower"), found, *blockwise(inner, workload(UNITS), workload(UNITS)))


def blockwise(timer: Timer, a: Timed, b: Timed) -> tuple[bool, bool]:
    """Spend the budget on all of a, then on all of b; return whether they differ, by a t-interval and by ranks."""
    alone = copy(timer)
    alone.budget = timer.budget / 2
    x, y = alone.rounds([a])[:, 0], alone.rounds([b])[:, 0]
    return welch(x, y), mann_whitney(x, y)


def welch(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether the t-interval at 95 % of the difference of the means excludes 0.

    Source: Welch, "The generalization of Student's problem" (1947); with fewer degrees of freedom than his, which
    makes the interval wider.
    """
    error = math.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y))
    freedom, z = min(len(x), len(y)) - 1, _TWO_SIDED
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)  # Cornish & Fisher, 1937
    return bool(abs(x.mean() - y.mean()) > t * error)


def mann_whitney(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether one sample lies higher than the other, by the ranks of their values, at 95 %.

    Source: Mann & Whitney, "On a test of whether one of two random variables is stochastically larger" (1947).
    """
    n, m = len(x), len(y)
    above = ranks(np.concatenate([x, y]))[:n].sum() - n * (n + m + 1) / 2
    return bool(abs(above) > _TWO_SIDED * math.sqrt(n * m * (n + m + 1) / 12))


def square_roots() -> Workload:
    """Return what makes functions that take the square roots of 16 KiB so many times.

    All work on the same memory: another place alone can make a percent.
    """
    x = np.full(4096, 2.0, np.float32)
    work = partial(np.sqrt, x, x.copy())
    return lambda units: partial(_repeat, units, work)


def _repeat(times: int, work: Timed) -> None:
    for _ in repeat(None, times):
        work()


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 1 if a promise is refuted, 130 after Ctrl-C, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tinytorch.profiling.self_test", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="30 trials in half a minute at most")
    parser.add_argument("--trials", type=int, help="of each kind; default: 200, or 30 if quick")
    parser.add_argument("--seed", type=int, default=0, help="of the order of everything")
    options = parser.parse_args(argv)
    wanted = options.trials or (30 if options.quick else 200)
    rng = np.random.default_rng(options.seed)
    timer = Timer(budget=0.25 if options.quick else 1.0, rng=rng, progress=True)
    trials: list[Trial] = []
    try:
        for trial in _trials(timer, wanted, rng, square_roots()):
            trials.append(trial)
    except KeyboardInterrupt:
        print(f"\nstopped after {len(trials)} of {wanted} trials", file=sys.stderr)
    if trials:
        SelfTest.of(trials).table().print_rich()
    if len(trials) < wanted:
        return 130
    return 1 if SelfTest.of(trials).refuted else 0


if __name__ == "__main__":
    sys.exit(main())
