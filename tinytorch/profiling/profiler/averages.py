"""Events added up by what they have in common, under PyTorch's names and in its unit: microseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args, overload

from tinytorch.profiling.event import Event, self_times
from tinytorch.profiling.operation import Array
from tinytorch.profiling.table import Column, Table, seconds, share

GroupBy = Literal["name", "module", "shapes"]
SortBy = Literal["self_cpu_time_total", "cpu_time_total", "cpu_time", "count", "key"]
Shapes = tuple[tuple[int, ...], ...]
_SHAPES = 4  # in a table's row
WHOLE = "(all)"  # the module group of everything: its own part is what ran in no sub-module


@dataclass(frozen=True)
class Average:
    """A group of events. Times are in microseconds, as in PyTorch.

    Attributes
    ----------
    key
        What they have in common.
    count
        How many there are; of a module, how often it was called.
    cpu_time_total
        Time within them. An event that lies within another of its group is not counted twice.
    self_cpu_time_total
        The part of it that no event within them took.
    name
        In groups by module its class, "nn.Linear".
    input_shapes
        In groups by shapes, those of the tensors and arrays that the operation was given.
    """

    key: str
    count: int
    cpu_time_total: float
    self_cpu_time_total: float
    name: str = ""
    input_shapes: Shapes = ()

    @property
    def cpu_time(self) -> float:
        """Microseconds per call."""
        return self.cpu_time_total / max(1, self.count)


def label(event: Event) -> str:
    """Return a name that tells a layer from the operation of the same name: "nn.Linear" and "Linear"."""
    return f"nn.{event.name}" if event.kind == "module" else event.name


class Averages(Sequence[Average]):
    """Groups of events, the one with the most time of its own first.

    Parameters
    ----------
    rows
        The groups.
    group_by
        What they were grouped by.
    notes
        What the table says below them.
    """

    def __init__(self, rows: Sequence[Average], group_by: GroupBy = "name", notes: Sequence[str] = ()) -> None:
        self.rows = _sorted(rows, "self_cpu_time_total")
        self.group_by, self.notes = group_by, tuple(notes)

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds in all: the time of the outermost events."""
        return sum(row.self_cpu_time_total for row in self.rows)

    def table(self, sort_by: str = "self_cpu_time_total", row_limit: int = 100) -> Table:
        """Return a table of the first rows.

        Parameters
        ----------
        sort_by
            "self_cpu_time_total", "cpu_time_total", "cpu_time", "count", each falling, or "key".
        row_limit
            How many rows; all if negative.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        if sort_by not in get_args(SortBy):
            raise ValueError(f"sort_by is one of {', '.join(get_args(SortBy))}, got {sort_by!r}")
        rows, notes = _sorted(self.rows, sort_by), list(self.notes)
        if 0 <= row_limit < len(rows):
            notes.insert(0, f"and {len(rows) - row_limit} rows more")
            rows = rows[:row_limit]
        whole = self.self_cpu_time_total
        second = {"module": [Column("class", words=True)], "shapes": [Column("input shapes", words=True)]}
        columns = [
            Column(self.group_by if self.group_by == "module" else "name", words=True),
            *second.get(self.group_by, []),
            Column("self CPU", _from_us),
            Column("share", share),
            Column("CPU total", _from_us),
            Column("CPU per call", _from_us),
            Column("calls"),
        ]
        return Table(f"{_from_us(whole)} of recorded time", columns, [self._cells(row, whole) for row in rows], notes)

    def _cells(self, row: Average, whole: float) -> list[object]:
        shapes = ", ".join("x".join(map(str, shape)) or "()" for shape in row.input_shapes[:_SHAPES])
        if len(row.input_shapes) > _SHAPES:
            shapes += f" and {len(row.input_shapes) - _SHAPES} more"
        second = {"module": [row.name], "shapes": [shapes]}.get(self.group_by, [])
        part = row.self_cpu_time_total / whole if whole else 0.0
        return [row.key, *second, row.self_cpu_time_total, part, row.cpu_time_total, row.cpu_time, row.count]

    @overload
    def __getitem__(self, index: int) -> Average: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Average]: ...
    def __getitem__(self, index: int | slice) -> Average | Sequence[Average]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def key_averages(events: Sequence[Event], group_by: GroupBy = "name", notes: Sequence[str] = ()) -> Averages:
    """Add up events.

    Parameters
    ----------
    events
        Numbered in the order of their start.
    group_by
        "name": layers by class ("nn.Linear"), operations ("Linear"), derivatives ("LinearBackward"), ranges, steps.
        "module": by the module in which they ran, forward and backward; what ran below a module is part of its total.
        "shapes": by name and by the shapes of the inputs.
    notes
        What the tables say below.

    Raises
    ------
    ValueError
        If `group_by` is none of these.
    """
    if group_by not in get_args(GroupBy):
        raise ValueError(f"group_by is one of {', '.join(get_args(GroupBy))}, got {group_by!r}")
    paths = {event.path for event in events}
    inside: Counter[Hashable] = Counter()  # how many of the events around this one belong to each group
    around: list[tuple[int, list[Hashable]]] = []
    count: Counter[Hashable] = Counter()
    total: Counter[Hashable] = Counter()
    own: Counter[Hashable] = Counter()
    names: dict[Hashable, str] = {}
    for number, (event, self_time) in enumerate(zip(events, self_times(events), strict=True)):
        while around and around[-1][0] != event.parent:
            inside.subtract(around.pop()[1])
        groups = _groups(event, group_by, paths)
        for group in groups:
            total[group] += 0 if inside[group] else event.duration
        inside.update(groups)
        around.append((number, groups))
        own[groups[0]] += self_time
        counts = group_by != "module" or event.kind == "module"
        count[groups[0]] += counts
        if counts:
            names.setdefault(groups[0], label(event))
    rows = []
    for group in total:
        key, shapes = group if isinstance(group, tuple) else (group, ())
        name = names.get(group, "") if group_by == "module" else ""
        rows.append(Average(str(key), count[group], total[group] / 1e3, own[group] / 1e3, name, shapes))
    return Averages(rows, group_by, notes)


def _groups(event: Event, group_by: GroupBy, paths: set[str]) -> list[Hashable]:
    """List the groups of an event, its own first."""
    if group_by == "name":
        return [label(event)]
    if group_by == "shapes":
        inputs = event.operation.inputs if event.operation else ()
        return [(label(event), tuple(x.shape for x in inputs if isinstance(x, Array)))]
    return [*_upwards(event.path, paths), WHOLE] if event.path else [WHOLE]


def _upwards(path: str, paths: set[str]) -> Iterator[str]:
    """Yield the path and those of the modules around it."""
    while path:
        if path in paths:
            yield path
        path = path.rpartition(".")[0]


def _sorted(rows: Sequence[Average], by: str) -> list[Average]:
    if by == "key":
        return sorted(rows, key=lambda row: (row.key, row.input_shapes))
    return sorted(rows, key=lambda row: getattr(row, by), reverse=True)


def _from_us(microseconds: float) -> str:
    return seconds(1e-6 * microseconds)
