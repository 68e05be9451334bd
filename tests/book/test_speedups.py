"""The pictures of published rows, and that neither they nor the tables beside them grow stale."""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.book import results, speedups
from tinytorch.book.row import Row
from tinytorch.book.speedups import PLOTS, Panel, alt, draw

KNOWN = results.rows()
SPEEDS = ("15_", "16_", "17_", "18_", "training_")  # runs that chapters 15 to 18 show
PANEL = Panel("Speeds", ("run/*",), "(.*)")


def speed(what: str = "a product", value: float = 2.0, low: float = 1.9, high: float = 2.1) -> Row:
    return Row(value, "x", what, "make bench", low=low, high=high)


@pytest.fixture
def one_panel(monkeypatch):
    monkeypatch.setattr(speedups, "PLOTS", {"15_acceleration": (PANEL,)})
    return "15_acceleration"


def shown(chapter):
    return [row for panel in PLOTS[chapter] for row in panel.of(KNOWN).values()]


def test_every_row_with_an_aim_is_in_a_picture():
    drawn = [row for chapter in PLOTS for row in shown(chapter)]
    aimed = {name: row for name, row in KNOWN.items() if row.aim and name.startswith(SPEEDS)}
    assert len(aimed) > 50
    assert [name for name, row in aimed.items() if row not in drawn] == []


@pytest.mark.parametrize("chapter", PLOTS)
def test_a_picture_tells_what_was_missed_in_words_too(chapter):
    verdicts = [row.aim.verdict for row in shown(chapter) if row.aim]
    picture = re.sub("<title>.*</title>", "", draw(chapter, KNOWN))
    for word in ("missed", "undecided"):
        assert len(re.findall(rf"\b{word}<", picture)) == verdicts.count(word)
        assert f"{verdicts.count(word)} {word}" in alt(chapter, KNOWN)


def test_every_published_verdict_is_what_its_interval_says():
    judged = 0
    for name, row in KNOWN.items():
        if row.aim:
            sign = 1 if row.aim.kind == "least" else -1
            low, high = sorted((sign * row.low, sign * row.high))
            aim = sign * row.aim.value
            assert row.aim.verdict == ("reached" if low >= aim else "missed" if high < aim else "undecided"), name
            judged += 1
    assert judged > 50


@pytest.mark.parametrize("chapter", PLOTS)
def test_a_picture_is_the_same_each_time_and_at_home_on_light_and_dark_pages(chapter):
    picture = draw(chapter, KNOWN)
    assert picture == draw(chapter, dict(KNOWN))
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in picture
    assert '<rect class="g"' in picture
    assert "<script" not in picture
    assert len(picture) < 40_000


@pytest.mark.parametrize("word", ["reached", "missed", "undecided"])
def test_a_verdict_has_a_colour_of_its_own_and_the_aim_a_line(one_panel, word):
    aimed = draw(one_panel, {"run/a": speed(f"a product (aim at least 1.5: {word})")})
    plain = draw(one_panel, {"run/a": speed()})
    assert speedups._COLOURS[word] in aimed
    assert speedups._COLOURS[word] not in plain
    assert aimed.count('stroke-width="2.5"') == 1
    assert plain.count('stroke-width="2.5"') == 0


@given(
    st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=3),
    st.floats(1e-3, 1e6),
    st.sampled_from(["x", "%"]),
    st.sampled_from(["least", "most"]),
)
def test_nothing_is_drawn_outside(numbers, aim, unit, kind):
    low, value, high = sorted(numbers)
    row = Row(value, unit, f"a (aim at {kind} {aim:f}: missed)", "make bench", low=low, high=high)
    scale = speedups._Scale({"a": row}, 100.0, 400.0)
    places = [scale(x) for x in (low, value, high, row.aim.value, scale.start)] + [x for x, _ in scale.ticks()]
    assert all(99.99 <= x <= 400.01 for x in places)
    assert places[:3] == sorted(places[:3])
    assert all(b - a > 6 * speedups.LETTER for (a, _), (b, _) in pairwise(scale.ticks()))
    assert all(math.isfinite(x) for x in places)


def test_rows_on_all_threads_come_in_a_panel_of_their_own():
    what = "Matrix product 1024 x 1024 x 1024{}, NumPy's time over ours"
    rows = {f"15_matmul/1024x1024x1024_numpy{kind}": speed(what.format(words), value)
            for kind, words, value in (("", "", 1.25), ("_threads", ", 2 threads", 1.5))}  # fmt: skip
    one, all_ = (panel for panel in PLOTS["15_acceleration"] if panel.title.startswith("Matrix product: time"))
    assert {label: row.value for label, row in one.of(rows).items()} == {"1024 x 1024 x 1024, NumPy": 1.25}
    assert {label: row.value for label, row in all_.of(rows).items()} == {"1024 x 1024 x 1024, NumPy": 1.5}
    assert all_.title.endswith("all threads")


@pytest.mark.parametrize("rows", [{"run/a": speed(""), "run/b": speed("b")}, {"run/a": speed(), "run/b": speed()}])
def test_a_row_without_a_label_of_its_own_is_named(rows):
    with pytest.raises(ValueError, match=r"the panel 'Speeds' has no label of its own for run/[ab]"):
        PANEL.of(rows)


def test_every_published_picture_is_fresh():
    pictures = results.pictures()
    assert len(pictures) == 4
    assert results.stale(pictures, KNOWN) == []
    for picture in pictures:
        assert f"<!-- plot:{picture.parent.name} -->\n![" in (picture.parent / "README.md").read_text()


def test_a_picture_and_a_table_are_stale_as_soon_as_a_number_changes(tmp_path):
    """The number changes in a copy: in the measurements, then in the files by hand."""
    folder = tmp_path / "15_acceleration"
    folder.mkdir()
    name = "15_matmul/1024x1024x1024_numpy"
    readme, picture = folder / "README.md", folder / results.PICTURE
    readme.write_text(f"<!-- results:{name} -->\n<!-- /results -->\n<!-- plot:15_acceleration -->\n<!-- /plot -->\n")
    files = [readme, picture]
    assert results.stale(files, KNOWN, write=True) == files
    assert results.stale(files, KNOWN) == []
    slower = KNOWN | {name: replace(KNOWN[name], value=0.5, what="Matrix product 1, NumPy's time over ours")}
    assert results.stale(files, slower) == files
    for file in files:
        fresh = file.read_text()
        assert results.stale([file], KNOWN) == []
        file.write_text(fresh.replace(str(KNOWN[name]), "7.77 x"))
        assert results.stale([file], KNOWN) == [file]
        file.write_text(fresh)


def test_a_plot_of_no_chapter_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("<!-- plot:99_flying -->\n<!-- /plot -->")
    with pytest.raises(KeyError, match=r"README\.md: <!-- plot:99_flying --> names no picture; there is: 15_acceler"):
        results.stale([path], KNOWN)


def test_several_names_make_one_table_in_their_order():
    known = {name: speed(name) for name in ("run/a", "run/b", "run/c")}
    text = results.render("<!-- results:run/c,run/[ab] -->\n<!-- /results -->", known)
    assert re.findall(r"^\| (run/.)", text, re.MULTILINE) == ["run/c", "run/a", "run/b"]
    with pytest.raises(KeyError, match="names no measured row: run/z"):
        results.render("<!-- results:run/a,run/z -->\n<!-- /results -->", known)
