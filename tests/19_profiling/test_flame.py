"""The picture of a profile: what its boxes say, and where they lie."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tinytorch import nn
from tinytorch.book.style import PALETTE
from tinytorch.profiling.event import Event
from tinytorch.profiling.profiler.context import ProfilerContext
from tinytorch.profiling.profiler.flame import COLOURS, LETTER, ROW, WIDTH, Flame

SVG = "{http://www.w3.org/2000/svg}"
EVENTS = [
    Event("module", "Sequential", "", 0, 6_000),
    Event("module", "Linear", "0", 0, 1_500, parent=0),
    Event("forward", "Linear", "0", 0, 1_000, parent=1),
    Event("module", "Linear", "0", 1_500, 1_500, parent=0),
    Event("module", "ReLU", "1", 3_000, 2_000, parent=0),
    Event("range", "load <&>", "", 9_000, 2_000),
]


def boxes(flame):
    """Return {title: (left, top, width)} of the boxes, and their words."""
    root = ElementTree.fromstring(flame.svg)
    places, words = {}, {}
    for group in root.iter(f"{SVG}g"):
        title, rect, text = (group.find(f"{SVG}{tag}") for tag in ("title", "rect", "text"))
        assert title.text not in places
        places[title.text] = tuple(float(rect.get(name)) for name in ("x", "y", "width"))
        words[title.text] = "" if text is None else text.text
    return places, words


def test_boxes_are_as_wide_as_their_time_under_the_call_they_were_made_in():
    places, words = boxes(Flame(EVENTS))
    unit = WIDTH / 8  # of 8 µs in all: the time between the outermost calls is left out
    expected = {
        "all: 8 µs, 100 %": (0, 0, 8),
        "nn.Sequential: 6 µs, 75 %": (0, 1, 6),
        "nn.Linear in 0: 2 calls, 3 µs, 37.5 %": (0, 2, 3),
        "Linear in 0: 1 µs, 12.5 %": (0, 3, 1),
        "nn.ReLU in 1: 2 µs, 25 %": (3, 2, 2),
        "load <&>: 2 µs, 25 %": (6, 1, 2),
    }
    assert places.keys() == expected.keys()
    for title, (left, row, width) in expected.items():
        assert places[title] == pytest.approx((left * unit, row * ROW, width * unit - 1), abs=0.01)
    assert list(words.values()) == ["all: 8 µs", "Sequential", "0: Linear ×2", "Linear", "1: ReLU", "load <&>"]


def test_equal_layers_in_two_places_are_two_boxes():
    places, _ = boxes(Flame([Event("module", "ReLU", path, 0, 1_000) for path in ("1", "3", "1")]))
    assert list(places)[1:] == ["nn.ReLU in 1: 2 calls, 2 µs, 66.7 %", "nn.ReLU in 3: 1 µs, 33.3 %"]


def test_words_are_cut_to_the_box():
    events = [Event("range", "a" * 30, "", 0, 1_000), Event("range", "b", "", 1_000, 99_000)]
    assert "" in boxes(Flame(events))[1].values()
    for share in (0.08, 0.1, 0.2, 0.3, 0.5):
        events = [Event("range", "a" * 30, "", 0, int(share * 1e6)), Event("range", "b", "", 0, int((1 - share) * 1e6))]
        (word,) = (word for title, word in boxes(Flame(events))[1].items() if title.startswith("a" * 30))
        assert len(word) * LETTER <= share * WIDTH - 9  # the margins
        assert re.fullmatch("a{30}|a+…", word)


def test_what_is_too_narrow_to_be_seen_is_not_drawn():
    events = [Event("range", "long", "", 0, 10**9), *(Event("range", f"short {i}", "", 10**9, 10) for i in range(100))]
    assert len(boxes(Flame(events))[0]) == 2


def test_boxes_of_a_real_profile_lie_within_the_picture():
    model = nn.GPT(16, embed_dim=8, num_layers=2, num_heads=2, max_seq_len=8, rng=np.random.default_rng(0))
    with ProfilerContext(model) as prof:
        for _ in range(3):
            model(np.zeros((1, 4), np.int64)).sum().backward()
    flame = prof.flame()
    places, words = boxes(flame)
    assert all(left >= 0 and left + width <= WIDTH for left, _, width in places.values())
    assert "GPT ×3" in words.values()
    root = ElementTree.fromstring(flame.svg)
    height = float(root.get("viewBox").split()[3])
    assert max(float(text.get("y")) for text in root.iter(f"{SVG}text")) < height


def test_it_takes_its_ink_from_the_page_and_its_colours_from_the_book():
    flame = Flame(EVENTS)
    colours = set(re.findall(r'fill="([^"]*)"', flame.svg))
    assert colours == {"currentColor", *(COLOURS[kind][0] for kind in ("module", "forward", "range"))}
    assert {colour for colour, _ in COLOURS.values()} <= set(PALETTE)
    assert "max-width: 100%" in flame.svg
    assert not re.search(r"\bid=|<style|<script", flame.svg)  # nothing that clashes with another picture's


def test_it_is_described_in_words_for_those_who_do_not_see_it(tmp_path):
    flame = Flame(EVENTS)
    assert flame.describe() == (
        "Flame graph of 8 µs; the most time of their own have nn.Linear in 0 (25 %), nn.ReLU in 1 (25 %), "
        "load <&> (25 %)."
    )
    root = ElementTree.fromstring(flame.svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", flame.describe())
    assert flame.svg in flame._repr_html_()
    flame.save(tmp_path / "flame.svg")
    assert (tmp_path / "flame.svg").read_text(encoding="utf-8") == flame.svg


def test_without_events_it_says_so():
    flame = Flame([], "Nothing ran & nothing was drawn.")
    assert flame.describe() == "Nothing ran & nothing was drawn."
    (text,) = ElementTree.fromstring(flame.svg).iter(f"{SVG}text")
    assert text.text == flame.describe()


def test_calls_that_took_no_time_at_all_are_no_error():
    assert "0 ns" in Flame([Event("range", "instant", "", 0, 0)]).describe()
    assert Flame([Event("range", "instant", "", 0, 0)]).svg
