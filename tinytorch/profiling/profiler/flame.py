"""A profile as a picture: boxes as wide as the time they took, each under the call in which it was made.

Source: Gregg, "The flame graph", Communications of the ACM 59 (2016); with the root on top, as an "icicle".
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike

from tinytorch.profiling.dispatch import Kind
from tinytorch.profiling.event import Event
from tinytorch.profiling.files import write_text
from tinytorch.profiling.profiler.averages import label
from tinytorch.profiling.table import seconds, share

# The book's palette (tinytorch/book/style.py). The boxes let the page shine through, so that letters in its own ink can
# be read on light and dark ones.
COLOURS: dict[Kind, tuple[str, str]] = {
    "module": ("#0072b2", "module"),
    "forward": ("#009e73", "operation"),
    "pass": ("#d55e00", "backward"),
    "backward": ("#d55e00", "backward"),
    "optimizer": ("#c46a9b", "optimizer"),
    "range": ("#b87a00", "your range"),
}
WIDTH, ROW, FONT = 500, 22, 12  # pixels at full size: letters are 8 pixels still on a telephone
LETTER = 0.62 * FONT  # about the average letter of a wide sans-serif face
NARROWEST = 0.4  # what is narrower cannot be seen


@dataclass
class Box:
    """Calls of one kind, name and path in one place of the tree, as one: times are in nanoseconds."""

    name: str
    path: str = ""
    kind: Kind | None = None  # None for the whole
    calls: int = 0
    time: int = 0
    within: dict[tuple[Kind, str, str], Box] = field(default_factory=dict)

    @property
    def own(self) -> int:
        """Time outside of the boxes within it."""
        return self.time - sum(box.time for box in self.within.values())

    def walk(self) -> Iterator[Box]:
        """Yield this box and all within it."""
        yield self
        for box in self.within.values():
            yield from box.walk()

    def words(self) -> str:
        """Return what stands in the box: a layer as `repr` names it, which tells narrow boxes apart."""
        times = f" ×{self.calls}" if self.calls > 1 else ""
        place = f"{self.path.rpartition('.')[2]}: " if self.kind == "module" and self.path else ""
        return f"{place}{self.name.removeprefix('nn.')}{times}"


def merged(events: Sequence[Event]) -> Box:
    """Return the tree of all calls, siblings of the same kind, name and path as one; without the time between them."""
    whole = Box("all")
    boxes: list[Box] = []
    for event in events:
        outer = boxes[event.parent] if event.parent >= 0 else whole
        box = outer.within.setdefault(event[:3], Box(label(event), event.path, event.kind))
        box.calls += 1
        box.time += event.duration
        boxes.append(box)
    whole.time = sum(box.time for box in whole.within.values())
    return whole


class Flame:
    """The picture: `svg` for a page, HTML in a notebook, `save` for a file, and `describe` in words.

    Parameters
    ----------
    events
        Numbered in the order of their start.
    empty
        What to say if there are none.
    """

    def __init__(self, events: Sequence[Event], empty: str = "Nothing was recorded.") -> None:
        self.whole, self.empty = merged(events), empty

    def describe(self) -> str:
        """Return one sentence: the time in all, and where the most of it was spent."""
        if not self.whole.within:
            return self.empty
        boxes = sorted(self.whole.walk(), key=lambda box: box.own, reverse=True)
        widest = [f"{self._place(box)} ({share(box.own / (self.whole.time or 1))})" for box in boxes[:3] if box.kind]
        return f"Flame graph of {seconds(1e-9 * self.whole.time)}; the most time of their own have {', '.join(widest)}."

    def _place(self, box: Box) -> str:
        return f"{box.name} in {box.path}" if box.path else box.name

    @cached_property
    def svg(self) -> str:
        """One `<svg>` element in the ink of the page that it is put into."""
        boxes = list(self._boxes(self.whole, 0.0, 0))
        rows = max((row for _, row in boxes), default=0) + 1
        kinds = {box.kind for box in self.whole.walk()}
        legend = list(dict.fromkeys(COLOURS[kind] for kind in COLOURS if kind in kinds))
        body = "".join(drawn for drawn, _ in boxes) + _legend(legend, rows * ROW)
        if not self.whole.within:
            body = f'<text x="4" y="{ROW - 7}">{html.escape(self.empty)}</text>'
        height = (rows + bool(legend)) * ROW
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{html.escape(self.describe())}" font-family="system-ui, sans-serif" font-size="{FONT}" '
            f'fill="currentColor" style="display: block; width: {WIDTH}px; max-width: 100%; '
            f'min-width: {3 * WIDTH // 5}px; height: auto">{body}</svg>'
        )

    def _boxes(self, box: Box, left: float, row: int) -> Iterator[tuple[str, int]]:
        """Yield a box and those within it, drawn, each with its row."""
        scale = WIDTH / (self.whole.time or 1)
        if box.time * scale < NARROWEST:
            return
        yield self._drawn(box, left, row, box.time * scale), row
        for inner in box.within.values():
            yield from self._boxes(inner, left, row + 1)
            left += inner.time * scale

    def _drawn(self, box: Box, left: float, row: int, width: float) -> str:
        colour = COLOURS[box.kind][0] if box.kind else "currentColor"
        opacity = 0.4 if box.kind else 0.1
        times = f"{box.calls} calls, " if box.calls > 1 else ""
        title = f"{self._place(box)}: {times}{seconds(1e-9 * box.time)}, {share(box.time / (self.whole.time or 1))}"
        words = box.words() if box.kind else f"all: {seconds(1e-9 * box.time)}"
        top, inner = row * ROW, max(width - 1, 0.3)  # a pixel of page between neighbours
        return (
            f"<g><title>{html.escape(title)}</title>"
            f'<rect x="{left:.2f}" y="{top}" width="{inner:.2f}" height="{ROW - 1}" fill="{colour}" '
            f'fill-opacity="{opacity}"/>{_text(words, left + 4, top + ROW - 7, inner - 8)}</g>'
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the picture to an SVG file.

        A FileNotFoundError if its folder does not exist, an IsADirectoryError if the path is one.
        """
        write_text(self.svg, path)

    def _repr_html_(self) -> str:
        return f'<div class="tinytorch-flame" style="overflow-x: auto">{self.svg}</div>'


def _text(words: str, left: float, base: float, width: float) -> str:
    """Return as many of the letters as fit; none where less than three do."""
    letters = int(width / LETTER)
    if letters < min(3, len(words)):
        return ""
    fitting = words if len(words) <= letters else words[: letters - 1].rstrip() + "…"
    return f'<text x="{left:.2f}" y="{base}">{html.escape(fitting)}</text>'


def _legend(entries: Sequence[tuple[str, str]], top: float) -> str:
    drawn, left = "", 4.0
    for colour, words in entries:
        drawn += (
            f'<rect x="{left:.0f}" y="{top + 6}" width="{FONT}" height="{FONT}" fill="{colour}" fill-opacity="0.4"/>'
        )
        drawn += f'<text x="{left + FONT + 4:.0f}" y="{top + ROW - 6}">{words}</text>'
        left += FONT + 20 + LETTER * len(words)
    return drawn
