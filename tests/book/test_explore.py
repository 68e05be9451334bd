"""explore: what it draws, what it says and what it refuses."""

import json

import pytest
from matplotlib.figure import Figure

from tinytorch.book import Explorer, explore, subplots


def draw(length, bits=8):
    figure, axes = subplots()
    axes.plot([1, length], [0, bits], label="attention")
    axes.legend()
    return figure, f"Length {length} at {bits} bits: {length * bits} in all."


def test_every_stop_has_its_own_frame_and_sentence():
    explorer = explore(draw, length=[16, 32], bits=[2, 4, 8])
    frame = explorer.children[-1]
    assert len(set(frame.frames)) == len(set(frame.sentences)) == 6
    assert frame.shape == [2, 3]
    assert frame.sentences[5] == "Length 32 at 8 bits: 256 in all."  # the last slider moves fastest


def test_sliders_are_labelled_and_read_as_the_stops():
    length, bits, _ = explore(draw, length=[16, 2048], bits=[2, 4]).children
    assert (length.description, length._options_labels) == ("length", ("16", "2048"))
    assert (bits.description, bits._options_labels) == ("bits", ("2", "4"))


def test_an_underscore_is_a_space_in_the_label():
    slider = explore(lambda sequence_length: draw(sequence_length), sequence_length=[16, 32]).children[0]
    assert slider.description == "sequence length"


def test_links_join_each_slider_to_its_own_position():
    explorer = explore(draw, length=[16, 32], bits=[2, 4])
    length, bits, frame = explorer.children
    links = [(link.source, link.target) for link in explorer._links]
    assert links == [((length, "index"), (frame, "position_0")), ((bits, "index"), (frame, "position_1"))]


def test_the_table_has_one_line_for_each_stop():
    assert explore(draw, length=[16, 2048], bits=[2, 4]).table() == (
        "length=16    bits=2  Length 16 at 2 bits: 32 in all.\n"
        "length=16    bits=4  Length 16 at 4 bits: 64 in all.\n"
        "length=2048  bits=2  Length 2048 at 2 bits: 4096 in all.\n"
        "length=2048  bits=4  Length 2048 at 4 bits: 8192 in all."
    )


def test_the_compared_words_are_constant_and_name_the_sliders():
    bundle = explore(draw, length=[16, 32, 2048], bits=[8])._repr_mimebundle_()
    assert bundle["text/plain"] == "Explorer(length: 16 ... 2048, 3 stops; bits: 8)"
    # nbval compares every other type; these it leaves out.
    assert set(bundle) - {"text/plain"} == {"image/png", "application/vnd.jupyter.widget-view+json"}


def test_equal_input_gives_equal_state():
    first, second = (explore(draw, length=[16, 32]).children[-1].get_state() for _ in range(2))
    for state in (first, second):
        del state["layout"]  # a model's name, drawn at random
    assert json.dumps(first, default=str) == json.dumps(second, default=str)


def test_a_frame_is_small():
    assert max(map(len, explore(draw, length=[16, 2048]).children[-1].frames)) < 30_000


@pytest.mark.parametrize(
    ("grid", "complaint"),
    [
        ({}, "1 to 3 lists of stops"),
        ({"a": [1], "b": [1], "c": [1], "d": [1]}, "1 to 3 lists of stops"),
        ({"length": []}, "length has no stops"),
        ({"length": [16, 32, 16]}, "the stop 16 more than once"),
        ({"length": [1, "1"]}, "the stop 1 more than once"),
        ({"length": range(43), "bits": [2, 4, 8]}, "129 stops"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_drawn(grid, complaint):
    def never(**stop):
        raise AssertionError("drawn")

    with pytest.raises(ValueError, match=complaint):
        explore(never, **grid)


@pytest.mark.parametrize("drawn", [None, "words", (None, "words"), ("words", Figure()), (Figure(),), (Figure(), 3)])
def test_anything_but_a_figure_and_a_sentence_is_refused(drawn):
    with pytest.raises(TypeError, match=r"must return \(figure, sentence\); at \{'length': 16\}"):
        explore(lambda length: drawn, length=[16])


@pytest.mark.parametrize("sentence", ["", "  ", "two\nlines"])
def test_a_sentence_is_one_line_of_words(sentence):
    with pytest.raises(ValueError, match="one line of words"):
        explore(lambda length: (Figure(), sentence), length=[16])


def test_a_picture_too_large_for_a_page_is_refused():
    def crowded(length):
        figure, axes = subplots()
        axes.scatter(range(length), range(length), marker="o")
        return figure, "Crowded."

    with pytest.raises(ValueError, match="fewer points"):
        explore(crowded, length=[2000])


def test_something_to_draw_with_is_asked_for():
    with pytest.raises(TypeError, match="function to draw with, not int"):
        explore(3, length=[16])


def test_an_explorer_is_what_it_returns():
    explorer = explore(draw, length=[16, 32])
    assert isinstance(explorer, Explorer)
    assert explorer.grid == {"length": [16, 32]}
