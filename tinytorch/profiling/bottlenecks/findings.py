"""What `find_bottlenecks` finds: rows with a verdict, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from tinytorch.acceleration.roofline import MEMORY, TOLERANCE, Point, Roofline
from tinytorch.profiling.bottlenecks.advice import Advice
from tinytorch.profiling.bottlenecks.verdict import Verdict
from tinytorch.profiling.dispatch import Kind
from tinytorch.profiling.table import Column, Table, seconds, share


@dataclass(frozen=True)
class Bottleneck:
    """Equal calls together, and what they wait for.

    Attributes
    ----------
    name, kind
        As in `dispatch.Call`. The time between operations has rows of the kinds "module" (within modules), "pass"
        (within a backward pass) and "range" (your own code).
    shapes
        Of the inputs: "32x128, 10x128, 10".
    calls, seconds
        How many, and the time of all, without that of calls within them.
    usual
        Calls times their median: what is judged, for one interruption by another program says nothing of the kernel.
    total_seconds
        The time of the whole profile.
    verdict, reason
        What the calls wait for, and how that shows.
    advice
        What to try, first to last, with the chapter that shows it.
    flops, bytes
        Of all calls: operations, without those that a causal mask hides, and bytes that have to come in.
    level
        Where the bytes come from: the nearest cache that holds them, or DRAM.
    bound
        Seconds that the roofline allows; 0 where nothing is known of the work.
    """

    name: str
    kind: Kind
    shapes: str
    calls: int
    seconds: float
    usual: float
    total_seconds: float
    verdict: Verdict
    reason: str
    advice: tuple[Advice, ...] = ()
    flops: int = 0
    bytes: int = 0
    level: str = MEMORY
    bound: float = 0.0

    @property
    def share(self) -> float:
        """The part of the whole profile's time."""
        return self.seconds / self.total_seconds

    @property
    def intensity(self) -> float:
        """Operations per byte; 0 without bytes."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def efficiency(self) -> float:
        """The part of the roof that was reached. Above 1.05 something is wrong, and the reason says so."""
        return self.bound / self.usual if self.usual else 0.0

    @property
    def savings(self) -> float:
        """Seconds that a perfect kernel would save at most."""
        return min(max(self.usual - self.bound, 0.0), self.seconds)

    @property
    def speedup(self) -> float:
        """How many times as fast the whole becomes with these savings, by Amdahl's law."""
        rest = self.total_seconds - self.savings
        return self.total_seconds / rest if rest > 0 else math.inf

    def __str__(self) -> str:
        lines = [f"{self.name} {self.shapes}".strip() + f": {self.verdict}, {self.reason}."]
        if self.savings:
            lines += [f"At most {seconds(self.savings)} less: the whole {self.speedup:.3g} times as fast."]
        return "\n".join([*lines, *(f"Try: {advice}" for advice in self.advice)])


class Bottlenecks(Sequence[Bottleneck]):
    """What a profile spends its time on, the largest possible saving first.

    `total_seconds` is the time of the outermost calls together, `roofline` the roofs that the operations were placed
    under, `notes` what the table says below itself.
    """

    def __init__(
        self, rows: Sequence[Bottleneck], total_seconds: float, roofline: Roofline, notes: Sequence[str] = ()
    ) -> None:
        self._rows = sorted(rows, key=lambda row: row.savings, reverse=True)
        self.total_seconds, self.roofline, self.notes = total_seconds, roofline, tuple(notes)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Bottleneck: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Bottleneck]: ...
    def __getitem__(self, index: int | slice) -> Bottleneck | Sequence[Bottleneck]:
        return self._rows[index]

    def points(self) -> list[Point]:
        """Return the operations that compute something as points under the roofline, for a picture of it."""
        return [
            Point(row.name, row.intensity, row.flops / row.usual, row.flops / row.bound, row.efficiency, row.level)
            for row in self._rows
            if row.flops and row.bytes
        ]

    def shares(self) -> dict[Verdict, float]:
        """Return the part of the whole time with each verdict, the largest first."""
        parts: dict[Verdict, float] = {}
        for row in self._rows:
            parts[row.verdict] = parts.get(row.verdict, 0.0) + row.share
        return dict(sorted(parts.items(), key=lambda part: part[1], reverse=True))

    def table(self, row_limit: int = 10) -> Table:
        """Return a table of the first rows, all if `row_limit` is negative, with what to try against each.

        "saves" are the seconds that a perfect kernel would save at most, "whole" how many times as fast all of it
        becomes then.
        """
        rows = self._rows[: row_limit if row_limit >= 0 else None]
        tips = list(dict.fromkeys(advice for row in rows for advice in row.advice))
        columns = [
            Column("operation", words=True),
            Column("time", seconds),
            Column("share", share),
            Column("FLOP/B", lambda value: f"{value:.3g}" if value else "-"),
            Column("of roof", lambda value: share(value) if value else "-"),
            Column("verdict", words=True),
            Column("saves", seconds),
            Column("whole", lambda value: f"{value:.2f}x"),
            Column("try", words=True),
        ]
        cells = [
            [
                f"{row.name} {', '.join(row.shapes.split(', ')[:2])}".strip(),
                row.seconds,
                row.share,
                row.intensity,
                row.efficiency,
                _with_level(row),
                row.savings,
                row.speedup,
                ", ".join(str(tips.index(advice) + 1) for advice in row.advice),
            ]
            for row in rows
        ]
        notes = [*self.notes, *(f"{number}: {tip}" for number, tip in enumerate(tips, 1))]
        if self._rows:
            notes.insert(0, ", ".join(f"{share(part)} {verdict}" for verdict, part in self.shares().items()))
        if len(rows) < len(self):
            others = sum(row.share for row in self._rows[len(rows) :])
            notes.insert(0, f"and {len(self) - len(rows)} rows more: {share(others)} of the time")
        return Table(f"Bottlenecks: {seconds(self.total_seconds)} of recorded time", columns, cells, notes)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _with_level(row: Bottleneck) -> str:
    if row.efficiency > 1 + TOLERANCE:
        return f"{row.verdict} (above the roof)"
    return f"{row.verdict} ({row.level})" if row.verdict == "memory-bound" else row.verdict
