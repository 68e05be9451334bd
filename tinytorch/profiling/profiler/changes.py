"""What a change won, and where: two profiles side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args, overload

from tinytorch.profiling.event import Profile, self_times
from tinytorch.profiling.profiler.averages import label
from tinytorch.profiling.table import Column, Table, seconds

By = Literal["path", "name"]


@dataclass(frozen=True)
class Change:
    """Equal calls in both profiles: `before` and `after` are their own seconds, without the calls within them.

    `key` is the call's name, `path` that of the module in which it is made.
    `calls_before` or `calls_after` is 0 where only the other profile has such a call.
    """

    key: str
    path: str
    before: float
    after: float
    calls_before: int
    calls_after: int

    @property
    def won(self) -> float:
        """Seconds saved; negative if it became slower."""
        return self.before - self.after

    @property
    def ratio(self) -> float | None:
        """Time before over time after: above 1 is faster now. None if one side has no such call, or took no time."""
        return self.before / self.after if self.calls_before and self.calls_after and self.after else None


class Changes(Sequence[Change]):
    """All changes, what won most first; their sums are the times of the whole profiles."""

    def __init__(self, rows: Sequence[Change]) -> None:
        self.rows = sorted(rows, key=lambda row: row.won, reverse=True)
        self.total = Change(
            "total",
            "",
            sum(row.before for row in rows),
            sum(row.after for row in rows),
            sum(row.calls_before for row in rows),
            sum(row.calls_after for row in rows),
        )

    def table(self, row_limit: int = 100) -> Table:
        """Return a table of the changes that moved the most seconds, either way, and of the total.

        Parameters
        ----------
        row_limit
            How many rows above the total; all if negative.
        """
        rows, notes = self.rows, []
        if 0 <= row_limit < len(rows):
            moved = sorted(rows, key=lambda row: abs(row.won), reverse=True)[:row_limit]
            rows = [row for row in rows if row in moved]
            notes.append(f"and {len(self.rows) - row_limit} rows more, which moved less")
        if any(row.calls_before and row.calls_after and row.calls_before != row.calls_after for row in self.rows):
            notes.append("the last column differs where one profile made more calls: was it the same work?")
        columns = [
            Column("name", words=True),
            Column("path", words=True),
            Column("before", seconds),
            Column("after", seconds),
            Column("won", seconds),
            Column("before / after"),
            Column("calls"),
        ]
        title = f"{seconds(self.total.before)} before, {seconds(self.total.after)} after"
        return Table(title, columns, [_cells(row) for row in (*rows, self.total)], notes)

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Change]: ...
    def __getitem__(self, index: int | slice) -> Change | Sequence[Change]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return str(self.table())

    def print_rich(self) -> None:
        """Write the table to the terminal."""
        self.table().print_rich()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def compare(before: Profile, after: Profile, by: By = "path") -> Changes:
    """Compare two profiles of the same work.

    Parameters
    ----------
    before, after
        Profilers that have ended.
    by
        "path" compares calls of one kind and name in one module; "name" adds up all modules.

    Raises
    ------
    ValueError
        If a profile is empty, or `by` is neither.

    Examples
    --------
    >>> from tinytorch import Tensor
    >>> from tinytorch.profiling.profiler.context import ProfilerContext
    >>> with ProfilerContext() as before:
    ...     y = Tensor([1.0]).exp().log()
    >>> with ProfilerContext() as after:
    ...     y = Tensor([1.0]).exp()
    >>> [(c.key, c.calls_before, c.calls_after) for c in sorted(compare(before, after), key=lambda c: c.key)]
    [('Exp', 1, 1), ('Log', 1, 0)]
    """
    if by not in get_args(By):
        raise ValueError(f"by is one of {', '.join(get_args(By))}, got {by!r}")
    for name, profile in (("before", before), ("after", after)):
        if not profile.events:
            raise ValueError(f"compare: the profile `{name}` is empty, it has no events to compare")
    (times, calls), (times_after, calls_after) = _sums(before, by), _sums(after, by)
    return Changes(
        [
            Change(key, path, 1e-9 * times[group], 1e-9 * times_after[group], calls[group], calls_after[group])
            for group in dict.fromkeys((*calls, *calls_after))
            for key, path in [group[1:]]
        ]
    )


def _sums(profile: Profile, by: By) -> tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str, str]]]:
    times: Counter[tuple[str, str, str]] = Counter()
    calls: Counter[tuple[str, str, str]] = Counter()
    for event, own in zip(profile.events, self_times(profile.events), strict=True):
        group = (event.kind, label(event), event.path if by == "path" else "")
        times[group] += own
        calls[group] += 1
    return times, calls


def _cells(row: Change) -> list[object]:
    ratio = row.ratio
    side = "only before" if not row.calls_after else "only after" if not row.calls_before else "-"
    calls = f"{row.calls_before}" if row.calls_before == row.calls_after else f"{row.calls_before} / {row.calls_after}"
    return [row.key, row.path, row.before, row.after, row.won, side if ratio is None else f"{ratio:.3g}", calls]
