"""The one look of every figure: colours for light and dark pages, sizes that survive a telephone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

# Okabe and Ito's hues ("Color Universal Design", 2008), the light ones darkened until each has a contrast of 3:1 or
# more on a white page and on the dark ones of the book and of JupyterLab.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#c46a9b", "#b87a00", "#3a96cf")

_RC: Any = {  # Matplotlib's newest types want each key spelled out
    # Black is the ink: `to_svg` turns it into the reader's own text colour.
    "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-"]),
    "axes.facecolor": "none",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "figure.figsize": (5.4, 3.2),
    "font.size": 11.0,
    "grid.alpha": 0.2,
    "grid.color": "#000000",
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "image.cmap": "cividis",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    # A hash salt gives clip paths and markers names that do not change from run to run.
    "svg.hashsalt": "tinytorch",
    # Letters stay letters: crisp, selectable, a third of the bytes of outlines.
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw with the book's look inside a ``with`` block.

    `explore` draws every frame inside it; a chapter calls `use_style` once instead.
    """
    with matplotlib.rc_context(_RC):
        yield


def use_style() -> None:
    """Make the book's look the default of this process: one line in a chapter's set-up cell."""
    matplotlib.rcParams.update(_RC)


def subplots(width: float = 5.4, height: float = 3.2, **kwargs: Any) -> tuple[Figure, Any]:
    """Return a figure in the book's look and its axes, as ``plt.subplots`` does.

    Pyplot never hears of the figure, so that no notebook shows it a second time.

    Parameters
    ----------
    width, height
        Size in inches. At the default width the letters have the size of the text around them.
    kwargs
        What ``Figure.subplots`` takes: ``nrows``, ``ncols``, ``sharex``, ...

    Returns
    -------
    tuple
        The figure, and one axes or an array of them.
    """
    with style():
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots(**kwargs)
