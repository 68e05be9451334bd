"""The three figures that chapters draw again and again; anything else is plain Matplotlib on `subplots`."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tinytorch.book.style import style, subplots


def lines(
    x: Sequence[Any], series: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str, log: str = "", **size: float
) -> Figure:
    """Return a line chart: one line, with its own colour and dash, for each named series.

    Parameters
    ----------
    x
        Shared positions.
    series
        Values by the name that the legend gives them, each as long as `x`.
    log
        Axes on a logarithmic scale: ``"x"``, ``"y"`` or ``"xy"``.
    size
        ``width`` and ``height`` in inches.
    """
    figure, axes = subplots(**size)
    with style():
        for name, values in series.items():
            axes.plot(x, values, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if "x" in log:
            axes.set_xscale("log", base=2)
        if "y" in log:
            axes.set_yscale("log")
        if len(series) > 1:
            axes.legend()
    return figure


def bars(values: Mapping[str, float], *, xlabel: str, unit: str = "", **size: float) -> Figure:
    """Return horizontal bars with the value written at the end of each, the first on top: speed-ups, sizes.

    Parameters
    ----------
    values
        Lengths by name.
    unit
        Written after each value: ``"x"``, ``" MB"``.
    size
        ``width`` and ``height`` in inches.
    """
    figure, axes = subplots(**{"height": 0.9 + 0.4 * len(values)} | size)
    with style():
        drawn = axes.barh(list(values), list(values.values()), height=0.6)
        axes.bar_label(drawn, labels=[f"{value:.3g}{unit}" for value in values.values()], padding=4)
        axes.set_xlabel(xlabel)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return figure


def heatmap(values: Any, *, rows: Sequence[str], columns: Sequence[str], label: str, **size: float) -> Figure:
    """Return a matrix as colours with a scale beside it: attention maps.

    Parameters
    ----------
    values
        Shape (len(rows), len(columns)).
    rows, columns
        Names of rows (top to bottom) and columns.
    label
        What a colour means, with its unit: written beside the scale.
    size
        ``width`` and ``height`` in inches.
    """
    figure, axes = subplots(**{"width": 5.0, "height": 4.2} | size)
    with style():
        image = axes.imshow(values, aspect="auto", interpolation="none")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0, labelsize=min(11, 260 / len(rows), 260 / len(columns)))  # letters must not touch
        axes.grid(visible=False)
        figure.colorbar(image, label=label)
    return figure
