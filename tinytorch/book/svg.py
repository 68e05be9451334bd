"""A Matplotlib figure as SVG that can stand inside a page: small, the same bytes each time, at home on a dark page."""

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from tinytorch.book.style import style

_INK = re.compile(r"#000000\b")
_TAG = re.compile(r"<[^>]+>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_ID = re.compile(r'\sid="([^"]*)"')
_REFERENCE = re.compile(r'(?:url\(#|href="#)([^")]+)')
_FAMILY = re.compile(r"; font-family: [^;\"]*")
_FONT = re.compile(r"font: ((?:[a-z]+ )*)(?:(\d+) )?([\d.]+px) [^;\"]*")


def to_svg(figure: Figure) -> str:
    """Return the figure as one ``<svg>`` element to put into HTML.

    Black becomes ``currentColor``, so the figure follows the reader's theme; fonts become the page's own. Equal figures
    give equal text, and the names inside do not clash with those of another figure on the same page.
    """
    buffer = io.StringIO()
    _plain_powers(figure)
    with style(), _laid_out(figure):
        no_dates = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=no_dates, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Matplotlib's own <style> speaks to `*`, that is, to the whole page it is put into.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = _TAG.sub(_tidy_tag, svg)
    svg = re.sub(r">\s+<", "><", svg.strip())
    return _own_names(_own_root(svg))


class _Powers(LogFormatterSciNotation):
    """Labels of a logarithmic axis as plain text, 10², where Matplotlib typesets formulas: parsing those is slow."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        label = re.sub(r"\\mathdefault|[${}]", "", re.sub(r"\^\{(.+?)\}", _raised, super().__call__(x, pos)))
        return label.replace(r"\times", "×")


def _raised(match: re.Match[str]) -> str:
    return match[1].translate(str.maketrans("-\N{MINUS SIGN}0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _plain_powers(figure: Figure) -> None:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                base = axis.get_transform().base  # type: ignore[attr-defined]  # what a logarithmic one has
                if type(axis.get_major_formatter()) is LogFormatterSciNotation:
                    axis.set_major_formatter(_Powers(base))
                if type(axis.get_minor_formatter()) is LogFormatterSciNotation:
                    axis.set_minor_formatter(_Powers(base))


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Put axes and labels in their places, and leave them there inside a ``with`` block.

    `savefig` would draw the whole figure twice, the first time only for its layout: a quarter more time.
    """
    engine = figure.get_layout_engine()
    if engine is None or not figure.axes:
        yield
        return
    canvas, dpi = figure.canvas, figure.dpi
    FigureCanvasSVG(figure)  # letters are measured as they will be written, at SVG's 72 dots per inch
    figure.dpi = 72
    engine.execute(figure)
    figure.dpi = dpi
    figure.set_canvas(canvas)
    with rc_context({"figure.constrained_layout.use": False, "figure.autolayout": False}):
        figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def _tidy_tag(match: re.Match[str]) -> str:
    # A hundredth of a point cannot be seen; the digits after it are where machines differ, and half the bytes.
    tag = _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), match[0])
    tag = _FONT.sub(_page_font, _INK.sub("currentColor", tag))
    return _FAMILY.sub("", tag).replace("\n", " ")


def _page_font(match: re.Match[str]) -> str:
    style_words, weight, size = match.groups()
    parts = [f"font-size: {size}"]
    if weight or "bold" in style_words:
        parts.append(f"font-weight: {weight or 'bold'}")
    if "italic" in style_words or "oblique" in style_words:
        parts.append("font-style: italic")
    return "; ".join(parts)


def _own_root(svg: str) -> str:
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1]) * 96 / 72  # type: ignore[index]
    box = re.search(r'viewBox="[^"]*"', svg)[0]  # type: ignore[index]
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box} '
        'fill="currentColor" stroke-linejoin="round" stroke-linecap="butt" aria-hidden="true" '
        # A narrow screen shrinks the figure while its letters can still be read, then scrolls it.
        f'style="display: block; width: {width:.0f}px; max-width: 100%; min-width: {0.6 * width:.0f}px; height: auto">'
    )
    return re.sub(r"^<svg[^>]*>", root, svg)


def _own_names(svg: str) -> str:
    used = set(_REFERENCE.findall(svg))
    svg = _ID.sub(lambda match: match[0] if match[1] in used else "", svg)
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    names = {name: f"{prefix}-{number}" for number, name in enumerate(sorted(used))}
    svg = _ID.sub(lambda match: f' id="{names[match[1]]}"', svg)
    return _REFERENCE.sub(lambda match: match[0][: -len(match[1])] + names[match[1]], svg)


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG on white, for readers of the notebook that run no widgets."""
    buffer = io.BytesIO()
    _plain_powers(figure)
    with style():
        figure.savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
