"""`show`: the one way a chapter shows a figure that does not move."""

import base64
import html
import re
from typing import Any, Protocol

import ipywidgets
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure

from tinytorch.book.svg import to_png, to_svg

# JupyterLab marks widgets without a kernel as broken; this one is whole without one.
_WHOLE = ".tinytorch-picture.jupyter-widgets-disconnected::before { content: none }"


class Drawing(Protocol):
    """A picture that is one ``<svg>`` element already, such as a flame graph: black is ``currentColor`` in it."""

    @property
    def svg(self) -> str:
        """The element."""


class Picture(ipywidgets.HTML):  # type: ignore[misc]
    """A figure with its caption and the words for those who do not see it. Made by `show`."""

    # Why a widget. nbval compares every output but PNG, JPEG and widget views, and an SVG's bytes change with
    # Matplotlib's version; so the picture travels as a widget view (drawn inline, in the reader's colours, with alt
    # text, in JupyterLab) and as a PNG (on GitHub, in an untrusted notebook), and only the words are compared. The
    # built page needs no script for it: the Sphinx extension puts the widget's HTML where the view was.

    def __init__(self, figure: Figure | Drawing, alt: str, caption: str):
        self._alt, self._caption = alt, caption
        self._png = to_png(figure) if isinstance(figure, Figure) else None
        svg = to_svg(figure) if isinstance(figure, Figure) else _hidden(figure.svg)
        super().__init__(
            f"<style>{_WHOLE}</style>"
            '<figure class="tinytorch-figure" style="margin: 0.5em 0; line-height: 1.4">'
            f'<div role="img" aria-label="{html.escape(alt)}">{svg}</div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>",
            _dom_classes=("tinytorch-picture",),
        )

    def __repr__(self) -> str:
        return f"Figure: {self._caption}\n{self._alt}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return widget_bundle(self, self._png)


def _hidden(svg: str) -> str:
    """Hide a drawing from screen readers: the words around it are read out, and its own would be the second."""
    root = svg[: svg.index(">") + 1]
    return (
        re.sub(r' (?:role|aria-label)="[^"]*"', "", root).replace("<svg", '<svg aria-hidden="true"') + svg[len(root) :]
    )


def show(figure: Figure | Drawing, *, alt: str, caption: str) -> None:
    """Show a figure in the notebook, in JupyterLab and in the built page.

    Parameters
    ----------
    figure
        A `Drawing`, or a Matplotlib figure, drawn in the book's look (`subplots`, or after `use_style`). Black is its
        ink: it turns into the reader's text colour, so a dark page stays readable. What must stay black is ``#010101``.
    alt
        What the picture shows, in words, for a reader who does not see it.
    caption
        What to take from it: the line below the picture.

    Raises
    ------
    TypeError
        If `figure` is neither a Matplotlib figure nor a `Drawing`.
    ValueError
        If `alt` or `caption` is empty.
    """
    if not isinstance(figure, Figure) and not isinstance(getattr(figure, "svg", None), str):
        raise TypeError(f"show needs a Matplotlib figure or a drawing with its svg, not {type(figure).__name__}")
    for name, words in (("alt", alt), ("caption", caption)):
        if not words.strip():
            raise ValueError(f"show(..., {name}=...) is empty: say in words what the figure shows")
    display(Picture(figure, alt, caption))
    if isinstance(figure, Figure):
        close(figure)


def close(figure: Figure) -> None:
    """Take the figure from pyplot, which would show it once more at the end of the cell."""
    pyplot.close(figure)


def widget_bundle(widget: ipywidgets.DOMWidget, png: bytes | None) -> dict[str, Any]:
    """Return what a notebook stores for a widget: the view, a PNG for readers without widgets, and the words."""
    return {
        "text/plain": repr(widget),
        **({"image/png": base64.b64encode(png).decode()} if png else {}),
        "application/vnd.jupyter.widget-view+json": {
            "version_major": 2,
            "version_minor": 0,
            "model_id": widget.model_id,
        },
    }
