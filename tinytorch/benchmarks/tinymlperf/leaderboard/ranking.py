"""The ranking: one pure function for the command, the web and the exports.

Scores are measured, so two of them may differ by accident. A rank is a group of scores that cannot be told from the
best score in it: the interval of their ratio contains 1, or the ratio is under 1.01. "Cannot be told from" is no order
by itself (a from b and b from c says nothing of a from c); compared with the group's leader alone, it is.

The interval of a ratio of two scores, each with its own interval, is that of the difference of their logarithms: the
distances to the two ends that face each other, squared and added (Zou & Donner, "Construction of confidence intervals
about effect measures", Statistics in Medicine 27, 2008, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tinytorch.benchmarks.tinymlperf.scoring import Ratios, score
from tinytorch.profiling.timing.statistics import Estimate

OVERALL = "overall"
MINIMUM_EFFECT = 0.01


@dataclass(frozen=True)
class Entry:
    """A scored submission, or all tasks of one participant together.

    Attributes
    ----------
    participant
        The pseudonym.
    task
        The task's name, or `OVERALL`.
    score
        With its interval; 1000 for the reference.
    deterministic
        The score without the time.
    received
        When the submission came; of several, when the last of them came.
    submission
        Its number; of several, that of the last.
    passed
        Whether it meets the quality target; of several, whether all tasks do.
    quality, ratios
        What was found; None for all tasks together.
    """

    participant: str
    task: str
    score: Estimate
    deterministic: float
    received: datetime
    submission: int
    passed: bool = True
    quality: float | None = None
    ratios: Ratios | None = None

    @property
    def order(self) -> tuple[float, datetime, int, str]:
        """The better score first; of equal ones, what came earlier."""
        return (-self.score.value, self.received, self.submission, self.participant)


@dataclass(frozen=True)
class Ranked:
    """An entry with its rank, from 1; `tied` says that others have the same."""

    rank: int
    tied: bool
    entry: Entry


def distinguishable(better: Estimate, other: Estimate) -> bool:
    """Return whether the first score is above the second by more than accident and by 1 % at least."""
    difference = math.log(better.value / other.value)
    accident = math.hypot(math.log(better.value / better.low), math.log(other.high / other.value))
    return difference > accident and difference >= math.log1p(MINIMUM_EFFECT)


def best(entries: Iterable[Entry]) -> list[Entry]:
    """Return each participant's best entry, in order."""
    found: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: e.order):
        found.setdefault(entry.participant, entry)
    return list(found.values())


def rank(entries: Iterable[Entry]) -> list[Ranked]:
    """Rank the best entry of each participant, all for one task.

    The best score leads the first group. Down the order, each entry belongs to the group above it while it cannot be
    told from that group's leader; the first that can leads the next group, and those below are compared with it. The
    rank of a group is one more than the number of participants in the groups above (1, 1, 3).

    Raises
    ------
    ValueError
        If entries are of several tasks.
    """
    ordered = best(entries)
    if len(tasks := {entry.task for entry in ordered}) > 1:
        raise ValueError(f"scores of several tasks have no order: {', '.join(sorted(tasks))}")
    groups: list[list[Entry]] = []
    for entry in ordered:
        if groups and not distinguishable(groups[-1][0].score, entry.score):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    ranked, above = [], 0
    for group in groups:
        ranked += [Ranked(above + 1, len(group) > 1, entry) for entry in group]
        above += len(group)
    return ranked


def overall(entries: Iterable[Entry], tasks: Sequence[str]) -> list[Entry]:
    """Return one entry for each participant: the score of the best entries of all tasks, a missing one at the floor."""
    of: dict[str, dict[str, Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.order):
        of.setdefault(entry.participant, {}).setdefault(entry.task, entry)
    return [_together(participant, chosen, tasks) for participant, chosen in of.items()]


def standings(entries: Iterable[Entry], tasks: Sequence[str]) -> dict[str, list[Ranked]]:
    """Return the ranking of all tasks together, and then of each one."""
    known = [entry for entry in entries if entry.task in tasks]
    ranked = {OVERALL: rank(overall(known, tasks))}
    for task in tasks:
        ranked[task] = rank(entry for entry in known if entry.task == task)
    return ranked


def _together(participant: str, chosen: Mapping[str, Entry], tasks: Sequence[str]) -> Entry:
    total = score({task: entry.ratios for task, entry in chosen.items()}, tasks)
    last = max(chosen.values(), key=lambda e: (e.received, e.submission))
    passed = set(chosen) == set(tasks) and all(entry.passed for entry in chosen.values())
    return Entry(participant, OVERALL, total.score, total.deterministic, last.received, last.submission, passed=passed)
