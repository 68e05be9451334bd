"""What the chapters use to show things: figures, explorable figures, and the machinery of the built book.

Nothing else in the package imports this one: it needs Matplotlib and ipywidgets, the extra ``book``.
"""

from tinytorch.book.explore import Explorer, explore
from tinytorch.book.figures import Picture, show
from tinytorch.book.plots import bars, heatmap, lines
from tinytorch.book.style import PALETTE, style, subplots, use_style

__all__ = [
    "PALETTE",
    "Explorer",
    "Picture",
    "bars",
    "explore",
    "heatmap",
    "lines",
    "show",
    "style",
    "subplots",
    "use_style",
]
