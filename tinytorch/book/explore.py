"""`explore`: a figure with real sliders that needs no kernel to move."""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from matplotlib.figure import Figure

from tinytorch.book.figures import close, widget_bundle
from tinytorch.book.style import style
from tinytorch.book.svg import to_png, to_svg

MAX_SLIDERS = 3
MAX_FRAMES = 128
MAX_FRAME_BYTES = 64_000


class Frame(anywidget.AnyWidget):
    """One frame of many and its sentence: which of them, the positions say."""

    _esm = Path(__file__).parent / "widgets" / "src" / "explore.js"
    # JupyterLab marks widgets without a kernel as broken; these are whole without one.
    _css = ":is(.tinytorch-explorer, .tinytorch-explorer *).jupyter-widgets-disconnected::before { content: none }"

    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    frames = traitlets.List(traitlets.Unicode()).tag(sync=True)
    sentences = traitlets.List(traitlets.Unicode()).tag(sync=True)
    # A link in the browser joins two whole attributes, so each slider has its own.
    position_0 = traitlets.Int().tag(sync=True)
    position_1 = traitlets.Int().tag(sync=True)
    position_2 = traitlets.Int().tag(sync=True)


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Sliders over a small grid of stops, a precomputed picture and a sentence for each stop.

    Made by `explore`. Everything is joined in the browser, so the sliders move in JupyterLab, in a reopened notebook
    and in the built page alike, with or without a kernel.

    Attributes
    ----------
    grid
        The stops of each slider, by parameter name.
    sentences
        One for each stop, the last slider moving fastest.
    """

    def __init__(self, grid: dict[str, list[Any]], frames: list[str], sentences: list[str], png: bytes):
        self.grid = grid
        self.sentences = sentences
        self._png = png
        shape = [len(stops) for stops in grid.values()]
        frame = Frame(shape=shape, frames=frames, sentences=sentences)
        sliders = _sliders(grid)
        # Kept on the object: a link that is collected is a link that is cut.
        self._links = [
            ipywidgets.jslink((slider, "index"), (frame, f"position_{axis}")) for axis, slider in enumerate(sliders)
        ]
        super().__init__([*sliders, frame], _dom_classes=("tinytorch-explorer",))

    def table(self) -> str:
        """Return the table behind the picture, one line per stop: the stop's values and its sentence.

        A chapter prints it in the cell below, so that nbval compares every stop.
        """
        rows = [[f"{name}={value}" for name, value in stop.items()] for stop in _stops(self.grid)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), sentence])
            for row, sentence in zip(rows, self.sentences, strict=True)
        )

    def __repr__(self) -> str:
        sliders = (
            f"{name}: {stops[0]} ... {stops[-1]}, {len(stops)} stops" if len(stops) > 1 else f"{name}: {stops[0]}"
            for name, stops in self.grid.items()
        )
        return f"Explorer({'; '.join(sliders)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return widget_bundle(self, self._png)


def explore(draw: Callable[..., tuple[Figure, str]], **grid: Sequence[Any]) -> Explorer:
    """Draw a figure at every stop of a grid and put sliders over it.

    Parameters
    ----------
    draw
        Called as ``draw(name=stop, ...)`` once for each stop, inside the book's `style`. Returns a Matplotlib figure
        and a plain sentence that says the same in words. It should depend on its arguments only: equal input gives
        equal bytes in the notebook.
    grid
        One to three lists of distinct stops, by the name of draw's parameter. Underscores become spaces in the label.

    Returns
    -------
    Explorer
        Show it as a cell's last value and print its `table()` in the cell below.

    Raises
    ------
    TypeError
        If `draw` is not callable or returns anything but a figure and a string.
    ValueError
        If the grid has no slider or more than three, a list of stops is empty or holds two that read the same, there
        are more than 128 stops in all, a sentence is empty or spans lines, or a picture is larger than 64 kB.
    """
    if not callable(draw):
        raise TypeError(f"explore(draw, ...) needs a function to draw with, not {type(draw).__name__}")
    stops_of = {name: list(stops) for name, stops in grid.items()}
    _check_grid(stops_of)
    frames, sentences, png = [], [], b""
    for stop in _stops(stops_of):
        with style():
            figure, sentence = _check_drawn(draw(**stop), stop)
            frames.append(_check_size(to_svg(figure), stop))
            png = png or to_png(figure)
        sentences.append(sentence)
        close(figure)
    return Explorer(stops_of, frames, sentences, png)


def _stops(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _sliders(grid: dict[str, list[Any]]) -> list[ipywidgets.SelectionSlider]:
    # One width for all labels lines the sliders up.
    width = f"{0.6 * max(map(len, grid)) + 1:.1f}em"
    return [
        ipywidgets.SelectionSlider(
            options=[(str(stop), position) for position, stop in enumerate(stops)],
            description=name.replace("_", " "),
            style={"description_width": width},
            layout={"width": "100%", "max_width": "34rem"},
        )
        for name, stops in grid.items()
    ]


def _check_grid(grid: dict[str, list[Any]]) -> None:
    if not 1 <= len(grid) <= MAX_SLIDERS:
        raise ValueError(f"explore takes 1 to {MAX_SLIDERS} lists of stops, such as bits=[2, 4, 8]; got {len(grid)}")
    for name, stops in grid.items():
        labels = [str(stop) for stop in stops]
        if not labels:
            raise ValueError(f"{name} has no stops")
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"{name} has the stop {twice} more than once")
    count = prod(len(stops) for stops in grid.values())
    if count > MAX_FRAMES:
        raise ValueError(f"{count} stops in all; a page carries every picture, so {MAX_FRAMES} is the limit")


def _check_drawn(drawn: Any, stop: dict[str, Any]) -> tuple[Figure, str]:
    figure, sentence = drawn if isinstance(drawn, tuple) and len(drawn) == 2 else (None, None)
    if not (isinstance(figure, Figure) and isinstance(sentence, str)):
        raise TypeError(f"draw must return (figure, sentence); at {stop} it returned {drawn!r}")
    if not sentence.strip() or "\n" in sentence:
        raise ValueError(f"draw must say the state in one line of words; at {stop} it said {sentence!r}")
    return figure, sentence


def _check_size(svg: str, stop: dict[str, Any]) -> str:
    if len(svg) > MAX_FRAME_BYTES:
        raise ValueError(
            f"the picture at {stop} takes {len(svg):,} bytes, over {MAX_FRAME_BYTES:,}: draw fewer points "
            "(a page carries every picture)"
        )
    return svg
