"""What the instruments show: one table for the terminal, for plain text and for notebooks, and numbers with units."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def seconds(value: float) -> str:
    """Write a time with three digits.

    >>> seconds(0.00123), seconds(12.0), seconds(4.5e-8)
    ('1.23 ms', '12 s', '45 ns')
    """
    return _scaled(value, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))


def size(value: float) -> str:
    """Write a number of bytes in powers of 1024.

    >>> size(999), size(1536), size(3 * 1024**2)
    ('999 B', '1.5 KiB', '3 MiB')
    """
    return _scaled(value, (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)))


def count(value: float) -> str:
    """Write a number of operations in powers of 1000.

    >>> count(999), count(98_666), count(2_500_000_000)
    ('999', '98.7 k', '2.5 G')
    """
    return _scaled(value, (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)))


def share(value: float) -> str:
    """Write a part of a whole.

    >>> share(0.1234), share(0.00012)
    ('12.3 %', '0.012 %')
    """
    return f"{_digits(100 * value)} %"


def _scaled(value: float, units: Sequence[tuple[str, float]]) -> str:
    unit, factor = next((u for u in units if abs(value) >= u[1]), units[-1])
    return f"{_digits(value / factor)} {unit}".strip()


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Column:
    """A column: its title, how a value is written, and whether it is words, which begin on the left."""

    title: str
    write: Callable[[Any], str] = str
    words: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a title above and notes below.

    `str` gives plain text, `print_rich` writes to a terminal, a notebook shows it as HTML.

    Examples
    --------
    >>> print(Table("Layers", [Column("name", words=True), Column("time", seconds)], [("conv", 0.002)]))
    Layers
    name  time
    conv  2 ms
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = field(default=())

    def written(self) -> list[list[str]]:
        """Return the rows as text."""
        return [[column.write(v) for column, v in zip(self.columns, row, strict=True)] for row in self.rows]

    def __str__(self) -> str:
        lines = [[column.title for column in self.columns], *self.written()]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        return "\n".join([self.title, *(self._line(cells, widths) for cells in lines), *self.notes])

    def _line(self, cells: Iterable[str], widths: Iterable[int]) -> str:
        aligned = (
            cell.ljust(width) if column.words else cell.rjust(width)
            for column, cell, width in zip(self.columns, cells, widths, strict=True)
        )
        return "  ".join(aligned).rstrip()

    def rich(self) -> RichTable:
        """Return the table for a `rich` console."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
        table.caption = Text("\n".join(self.notes)) if self.notes else None
        for column in self.columns:
            table.add_column(column.title, justify="left" if column.words else "right", no_wrap=not column.words)
        for cells in self.written():
            table.add_row(*map(Text, cells))
        return table

    def print_rich(self) -> None:
        """Write the table to the terminal, in its colours and width."""
        from rich.console import Console

        Console().print(self.rich())

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Iterable[str]) -> str:
            aligned = (
                f'<{tag} style="text-align: {"left" if column.words else "right"}">{html.escape(cell)}</{tag}>'
                for column, cell in zip(self.columns, cells, strict=True)
            )
            return f"<tr>{''.join(aligned)}</tr>"

        head = row("th", [column.title for column in self.columns])
        body = "".join(row("td", cells) for cells in self.written())
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            f'<div class="tinytorch-table"><table><caption style="text-align: left">{html.escape(self.title)}</caption>'
            f"<thead>{head}</thead><tbody>{body}</tbody></table>{notes}</div>"
        )
