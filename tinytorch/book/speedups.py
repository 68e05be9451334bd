"""Pictures of published rows: a bar for each, its interval, and its aim as a line across it.

They stand in Markdown files as images, where a page's own colours do not reach: so each picture brings a ground of its
own, light or dark as the reader's screen. Equal rows give equal bytes.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from tinytorch.book.row import Row

WIDTH, LINE, FONT = 520, 18, 12  # pixels at full size: letters are 8 pixels still on a telephone
LETTER = 0.56 * FONT  # about the average letter of a sans-serif face
NUMBERS = 118  # for the value, and the word behind it
_COLOURS = {"reached": "#0072b2", "missed": "#d55e00", "undecided": "#b87a00", "": "#6e7781"}  # as in style.PALETTE
_KEY = "bar: median; thin line: interval; thick line: aim; bold: it was not reached, or not surely"
_STYLE = (
    "text{font:12px sans-serif;fill:#1f2328}.b{font-weight:bold}.g{fill:#ffffff}.i{stroke:#1f2328}.t{stroke:#8c959f}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{fill:#14181e}.i{stroke:#e6edf3}.t{stroke:#6e7681}}"
)


@dataclass(frozen=True)
class Panel:
    """Bars that share a scale.

    Attributes
    ----------
    title
        What their lengths are.
    names
        Patterns of the rows' names, ``run/row``.
    label
        A regular expression for what a row is; its groups are the bar's label.
    """

    title: str
    names: tuple[str, ...]
    label: str

    def of(self, known: Mapping[str, Row]) -> dict[str, Row]:
        """Return its rows by label, in the order of `known`.

        Raises
        ------
        ValueError
            If the label's expression does not fit a row, or two rows have one label; the message names them.
        """
        found: dict[str, Row] = {}
        for name, row in known.items():
            if any(fnmatchcase(name, pattern) for pattern in self.names):
                match = re.fullmatch(self.label, row.title)
                label = ", ".join(filter(None, match.groups())) if match else ""
                if not label or label in found:
                    raise ValueError(f"the panel {self.title!r} has no label of its own for {name}: {row.title}")
                found[label] = row
        return found


def _both(title: str, run: str, names: tuple[str, ...], start: str, end: str) -> tuple[Panel, Panel]:
    """Return the panel of one thread and that of all threads, whose rows say how many between start and end."""
    one, all_ = (tuple(f"{run}/{name}{kind}" for name in names) for kind in ("", "_threads"))
    return (
        Panel(f"{title}, one thread", one, f"{start}, {end}"),
        Panel(f"{title}, all threads", all_, rf"{start}, \d+ threads, {end}"),
    )


_CONVOLUTION = r"(?:of 8-bit codes, )?(batch \d+), (\d+ to \d+) channels, (\d+ x \d+)"
PLOTS: dict[str, tuple[Panel, ...]] = {  # by chapter
    "15_acceleration": (
        *_both("Matrix product: time of others over ours", "15_matmul", ("*x*_numpy", "*x*_torch", "*x*_ort"),
               "Matrix product (.*?)", r"(\w+)'s time over ours"),
        Panel("Matrix product: share of the measured peak", ("15_matmul/*x*_share",), "matmul_simd, (.*), of the .*"),
        *_both("3 x 3 convolution: the better of PyTorch and onnxruntime over ours", "15_inference", ("conv_*_best",),
               f"3 x 3 convolution, {_CONVOLUTION}", "the better of .*"),
        *_both("Reference CNN in one plan: time of others over ours", "15_inference", ("cnn_*_torch", "cnn_*_ort"),
               r"Reference CNN, (\d+ images?)", r"(\w+)(?: eager)?'s time over ours"),
        Panel("Fused kernels: time of a copy of the array over ours",
              tuple(f"15_fused/{name}" for name in ("relu", "gelu", "scale_shift_relu", "layer_norm", "softmax")),
              r"(\w+), 24 MiB: time of a copy .*"),
        Panel("Python loops over compiled kernels", ("15_inference/*_naive", "15_matmul/best_over_naive"),
              "(?:Our best )?([^,]*).*"),
        Panel("Training: time over PyTorch eager's, less is better", ("training_*/ratio",),
              r"Training (.*), time over .*"),
    ),
    "16_quantization": (
        *_both("Reference CNN in whole numbers: time of others over it", "16_int8",
               ("cnn_*_numpy", "cnn_*_fp32", "cnn_*_ort"),
               r"Reference CNN in whole numbers, (\d+ images?)", "time of (?:our )?(.*) over it"),
        Panel("CNN of 32, 64 and 128 channels: time of our plan in float32 over it", ("16_int8/wide_*_fp32",),
              r"CNN.*, (\d+ images?), .*"),
        *_both("8-bit convolution: the better of PyTorch and onnxruntime over ours", "16_int8", ("conv_*_best",),
               f"3 x 3 convolution {_CONVOLUTION}", "the better of .*"),
        Panel("8-bit convolution: our best time in float32 over it", ("16_int8/conv_*[0-9]_fp32",),
              f"3 x 3 convolution {_CONVOLUTION}, our best .*"),
        Panel("8-bit convolution: PyTorch's time in float32 over it", ("16_int8/conv_*_torch_fp32",),
              f"3 x 3 convolution {_CONVOLUTION}, PyTorch's .*"),
        Panel("Training with rounding: brought back of what it costs", ("16_accuracy/*_recovered*",),
              r"Of what (\d bits) .* training, (labels)(?: and the float (model)'s outputs)?"),
    ),
    "17_compression": (
        *(panel for words, name in (
            ("NumPy's time with the zeros", "numpy"), ("our best time with the zeros", "dense"),
            ("SciPy's time without them", "scipy"), ("PyTorch's time without them", "torch"),
        ) for panel in _both(
            f"Linear layer, some % of it zero: {words} over ours", "17_sparse", (f"linear_*_{name}",),
            r"Linear layer of (.*) weights, (\d+ %) of them zero, (batch \d+)", f"{words} over it",
        )),
        Panel("Reference CNN, smaller: time of the dense plan over it",
              ("17_models/global_90_dense", "17_models/adaptive_90_dense", "17_models/filters_50_dense"),
              "Reference CNN, (.*?)(?:, growing .*)?: the time .*"),
    ),
    "18_caching": (
        Panel("Whole texts: time without the cache over with it", ("18_generation/new_*_uncached",),
              r"(\d+ new tokens), .*"),
        Panel("PyTorch's time over ours", ("18_generation/*_torch",), "A (?:step at )?(.*), PyTorch's time over it"),
        Panel("A step over the time of reading weights and cache, less is better", ("18_generation/step_*_bound",),
              "A step at (.*), over the time .*"),
        Panel("A step at position 1024 over one at 128, less is better", ("18_generation/growth_*",),
              "A step .*, (.*)"),
    ),
}  # fmt: skip


def alt(chapter: str, known: Mapping[str, Row]) -> str:
    """Say in words what a chapter's picture shows."""
    shown = [(panel.title, panel.of(known)) for panel in PLOTS[chapter]]
    aims = [row.aim.verdict for _, rows in shown for row in rows.values() if row.aim]
    count = Counter(aims)
    titles = "; ".join(title for title, rows in shown if rows)
    verdicts = ", ".join(f"{count[word]} {word}" for word in ("reached", "missed", "undecided"))
    return f"Bars with intervals. {titles}. Of {len(aims)} aims: {verdicts}. The tables have the numbers."


def draw(chapter: str, known: Mapping[str, Row]) -> str:
    """Return a chapter's picture as the text of an SVG file."""
    parts, top = [_text(0, FONT, _KEY)], 2.0 * LINE
    for panel in PLOTS[chapter]:
        if rows := panel.of(known):
            parts += _panel(panel.title, rows, top)
            top += (len(rows) + 3) * LINE
    box = f"-8 -8 {WIDTH + 16} {top + 4:.0f}"
    words = html.escape(alt(chapter, known))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{WIDTH + 16}" role="img">'
    ground = f'<rect class="g" x="-8" y="-8" width="{WIDTH + 16}" height="{top + 4:.0f}" rx="4"/>'
    return "\n".join([head, f"<title>{words}</title>", f"<style>{_STYLE}</style>", ground, *parts, "</svg>\n"])


class _Scale:
    """Where a panel's numbers lie: from 1 on a logarithmic axis for ratios, else from 0."""

    def __init__(self, rows: Mapping[str, Row], left: float, right: float) -> None:
        self.left, self.right, self.ratios = left, right, any(row.unit == "x" for row in rows.values())
        values = [x for row in rows.values() for x in (row.value, row.low, row.high) if x is not None]
        values += [row.aim.value for row in rows.values() if row.aim]
        self.start = 1.0 if self.ratios else 0.0
        low, high = min(*values, self.start), max(*values, self.start)
        self.low, self.high = (low / 1.05, high * 1.05) if self.ratios else (low, high)

    def __call__(self, value: float) -> float:
        low, high, x = (map(math.log, (self.low, self.high, value))) if self.ratios else (self.low, self.high, value)
        return self.left + (self.right - self.left) * (x - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return as many round numbers as have space for their letters, with their places."""
        for steps in self._steps():
            places = [self(step) for step in steps if self.low <= step <= self.high]
            if all(b - a > 6 * LETTER for a, b in pairwise(places)):
                return list(zip(places, [f"{step:,g}" for step in steps if self.low <= step <= self.high], strict=True))
        return [(self(self.start), f"{self.start:g}")]

    def _steps(self) -> Iterator[list[float]]:
        """Yield round numbers, the closest first."""
        for each in (0.05, 0.1, 0.2, 0.5) if self.ratios else (5, 10, 25, 50, 100):
            if (self.high - self.low) / each < WIDTH:
                yield [round(k * each, 2) for k in range(math.floor(self.high / each) + 1)]
        if self.ratios:
            for leading in ((1, 2, 5), (1,)):
                yield [m * 10.0**e for e in range(-9, 10) for m in leading]


def _panel(title: str, rows: Mapping[str, Row], top: float) -> Iterator[str]:
    left = max(map(len, rows)) * LETTER + 8
    scale = _Scale(rows, left, WIDTH - NUMBERS)
    yield _text(0, top + FONT, title, bold=True)
    top += 1.2 * LINE
    bottom = top + len(rows) * LINE
    for x, words in scale.ticks():
        yield _line("t", x, top, x, bottom, 0.5)
        yield _text(x, bottom + FONT, words, anchor="middle")
    for number, (label, row) in enumerate(rows.items()):
        yield from _bar(label, row, scale, top + number * LINE)


def _bar(label: str, row: Row, scale: _Scale, top: float) -> Iterator[str]:
    verdict, middle = row.aim.verdict if row.aim else "", top + LINE / 2
    ends = sorted((scale(scale.start), scale(row.value)))
    yield _text(0, middle + 4, label)
    yield (
        f'<rect x="{ends[0]:.1f}" y="{top + 4:.1f}" width="{max(ends[1] - ends[0], 1):.1f}" height="{LINE - 8}" '
        f'fill="{_COLOURS[verdict]}"/>'
    )
    if row.low is not None and row.high is not None:
        yield _line("i", scale(row.low), middle, scale(row.high), middle, 1)
    if row.aim:
        yield _line("i", scale(row.aim.value), top + 1, scale(row.aim.value), top + LINE - 1, 2.5)
    missed = verdict in ("missed", "undecided")
    yield _text(scale.right + 8, middle + 4, f"{row} {verdict}" if missed else str(row), bold=missed)


def _text(x: float, y: float, words: str, *, anchor: str = "", bold: bool = False) -> str:
    more = (f' text-anchor="{anchor}"' if anchor else "") + (' class="b"' if bold else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{html.escape(words)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float, width: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{width:g}"/>'
