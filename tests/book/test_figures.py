"""show, the SVG behind it, and the look of all figures."""

import base64
import re
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from unittest import mock

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from tinytorch.book import PALETTE, Picture, bars, heatmap, lines, show, style, subplots, use_style
from tinytorch.book.svg import to_svg

# Page and code backgrounds of the book, light and dark, and JupyterLab's dark page.
GROUNDS = ("#ffffff", "#121212", "#111111", "#14181e")


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("colour", PALETTE)
def test_colours_stand_out_on_light_and_dark(colour, ground):
    dark, light = sorted((luminance(colour), luminance(ground)))
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_lines_differ_by_more_than_colour():
    figure = lines([1, 2], {name: [1, 2] for name in "abcd"}, xlabel="x", ylabel="y")
    drawn = figure.axes[0].get_lines()
    assert len({line.get_color() for line in drawn}) == len({line.get_linestyle() for line in drawn}) == 4


FIGURES = {
    "lines": lambda: lines([1, 2, 4], {"a": [1, 4, 16], "b": [2, 4, 8]}, xlabel="$n$", ylabel="y", log="xy"),
    "bars": lambda: bars({"naive": 1, "tiled": 3.25}, xlabel="speed-up", unit="x"),
    "heatmap": lambda: heatmap(np.eye(3), rows="abc", columns="abc", label="weight"),
}


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_svg_is_the_same_each_time_and_small(make):
    assert to_svg(make()) == to_svg(make())
    assert len(to_svg(make())) < 30_000


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_a_figure_that_is_laid_out_first_is_drawn_as_by_matplotlib_and_left_as_it_was(make):
    figure = make()
    before = figure.get_layout_engine(), figure.canvas, figure.dpi
    ours = to_svg(figure)
    assert (figure.get_layout_engine(), figure.canvas, figure.dpi) == before
    with mock.patch("tinytorch.book.svg._laid_out", return_value=nullcontext()):
        assert to_svg(make()) == ours


def test_powers_on_a_logarithmic_axis_are_plain_text_and_what_is_not_a_power_stays():
    figure, (left, right) = subplots(ncols=2)
    left.loglog([1e-3, 1e2], [20, 90])
    right.semilogx([8, 256], [1, 2], base=2)
    right.set_xticks([8, 256], ["8", "many"])
    words = re.findall(r">([^<>]+)</text>", to_svg(figure))
    assert {"10⁻²", "10⁰", "10²", "2×10¹", "6×10¹", "8", "many", "1.0"} <= set(words)
    assert not [word for word in words if "$" in word or "{" in word]


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_svg_is_well_formed_and_follows_the_page(make):
    svg = to_svg(make())
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("fill") == "currentColor"
    for fixed in ("#000000", "<style", "<script", "font-family", "http://purl", "Matplotlib"):
        assert fixed not in svg


def test_a_figure_made_by_plain_matplotlib_follows_the_page_too():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label="line")
    axes.set_title("Title", weight="bold")
    svg = to_svg(figure)
    assert "#000000" not in svg
    assert "#ffffff" not in svg
    assert "font-weight: bold" in svg or "font-weight: 700" in svg


def test_names_inside_do_not_clash_between_figures():
    names = [set(re.findall(r' id="([^"]+)"', to_svg(make()))) for make in FIGURES.values()]
    assert all(names)
    assert len(set.union(*names)) == sum(map(len, names))


def test_every_reference_inside_finds_its_name():
    for make in FIGURES.values():
        svg = to_svg(make())
        used = {a or b for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)}
        assert used == set(re.findall(r' id="([^"]+)"', svg))


def test_numbers_that_are_read_are_not_rounded():
    figure, axes = subplots()
    axes.text(0.5, 0.5, "0.12345")
    assert ">0.12345<" in to_svg(figure)


def test_show_displays_words_a_png_and_a_view():
    figure, _ = subplots()
    with mock.patch("tinytorch.book.figures.display") as display:
        show(figure, alt="Two lines.", caption="They cross.")
    picture = display.call_args.args[0]
    bundle = picture._repr_mimebundle_()
    assert bundle["text/plain"] == "Figure: They cross.\nTwo lines."
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}


def test_a_drawing_is_shown_as_it_is_with_its_words():
    class Flame:
        svg = '<svg role="img" aria-label="a > b" viewBox="0 0 9 9"><rect fill="currentColor"/></svg>'.replace(
            " >", " &gt;"
        )

    with mock.patch("tinytorch.book.figures.display") as display:
        show(Flame(), alt="One box.", caption="A call.")
    (picture,) = display.call_args.args
    assert '<svg aria-hidden="true" viewBox="0 0 9 9"><rect fill="currentColor"/></svg>' in picture.value
    assert re.findall('aria-label="([^"]*)"', picture.value) == ["One box."]
    assert picture._repr_mimebundle_().keys() == {"text/plain", "application/vnd.jupyter.widget-view+json"}


def test_words_with_markup_in_them_stay_words():
    figure, _ = subplots()
    value = Picture(figure, alt='a "<b>"', caption="x < y & z").value
    assert 'aria-label="a &quot;&lt;b&gt;&quot;"' in value
    assert "<figcaption>x &lt; y &amp; z</figcaption>" in value


def test_a_shown_figure_is_not_shown_again_by_pyplot():
    figure = pyplot.figure()
    with mock.patch("tinytorch.book.figures.display"):
        show(figure, alt="Nothing.", caption="Nothing.")
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("words", [{"alt": "", "caption": "c"}, {"alt": "a", "caption": " "}])
def test_a_figure_without_words_is_refused(words):
    with pytest.raises(ValueError, match="say in words"):
        show(subplots()[0], **words)


def test_only_a_figure_is_shown():
    with pytest.raises(TypeError, match="not str"):
        show("picture.png", alt="a", caption="c")


def test_style_ends_with_its_block_and_use_style_stays():
    before = matplotlib.rcParams["svg.fonttype"]
    with style():
        assert matplotlib.rcParams["svg.fonttype"] == "none"
    assert matplotlib.rcParams["svg.fonttype"] == before
    with matplotlib.rc_context():
        use_style()
        assert matplotlib.rcParams["svg.fonttype"] == "none"


def test_a_heatmap_names_its_rows_from_the_top():
    axes = heatmap([[1, 0], [0, 1]], rows=["first", "second"], columns=["a", "b"], label="w").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert axes.yaxis_inverted()


def test_bars_carry_their_values():
    axes = bars({"naive": 1, "tiled": 3.25}, xlabel="speed-up", unit="x").axes[0]
    assert [text.get_text() for text in axes.texts] == ["1x", "3.25x"]
