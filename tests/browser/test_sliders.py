"""Every slider of the built book, moved by keyboard, with no kernel."""

import math
import statistics

import pytest

# Times the way from a key press to the next frame after the sentence has changed, inside the page.
CLOCK = """() => {
  const first = window.delays === undefined;
  window.delays = [];
  if (!first) return;
  let pressed = 0;
  addEventListener("keydown", () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    const from = pressed;
    requestAnimationFrame(() => delays.push(performance.now() - from));
  }).observe(document.querySelector("article"), { subtree: true, childList: true, characterData: true });
}"""


@pytest.fixture
def figure(opened, book, explorer, stored_explorers):
    """The explorable figure on its page, its sliders at their first stops, with what its notebook says of it."""
    document, number = explorer
    page = opened(book, document).page
    box, stored = page.locator(".tinytorch-explorer").nth(number), stored_explorers(document)[number]
    for name, _ in stored["sliders"]:
        box.get_by_role("slider", name=name, exact=True).focus()
        page.keyboard.press("Home")
    wait_for_sentence(page, box, stored["sentences"][0])
    return page, box, stored


def wait_for_sentence(page, box, sentence):
    page.wait_for_function(
        "([box, words]) => box.querySelector('.tinytorch-sentence').textContent === words",
        arg=[box.element_handle(), sentence],
    )


def test_each_stop_shows_its_own_sentence_and_picture(figure):
    page, box, stored = figure
    page.evaluate(CLOCK)
    lengths = [len(stops) for _, stops in stored["sliders"]]
    for axis, (name, stops) in enumerate(stored["sliders"]):
        stride = math.prod(lengths[axis + 1 :])
        slider = box.get_by_role("slider", name=name, exact=True)
        slider.focus()
        pictures = set()
        for position, stop in enumerate(stops):
            if position:
                page.keyboard.press("ArrowRight")
            wait_for_sentence(page, box, stored["sentences"][position * stride])
            assert slider.get_attribute("aria-valuetext") == stop
            assert box.locator(".widget-readout").nth(axis).inner_text() == stop
            pictures.add(box.locator(".tinytorch-frame").inner_html())
        assert len(pictures) == len(stops)
        page.keyboard.press("Home")
    assert len(set(stored["sentences"])) == len(stored["sentences"])
    assert statistics.median(page.evaluate("delays")) < 100


def test_sliders_together_reach_the_last_stop(figure):
    page, box, stored = figure
    for name, _ in stored["sliders"]:
        box.get_by_role("slider", name=name, exact=True).focus()
        page.keyboard.press("End")
    wait_for_sentence(page, box, stored["sentences"][-1])


def test_a_page_opened_from_the_disk_moves_too(opened, book_on_disk, explorer, stored_explorers):
    document, number = explorer
    window = opened(book_on_disk, document)
    page = window.page
    box, stored = page.locator(".tinytorch-explorer").nth(number), stored_explorers(document)[number]
    box.get_by_role("slider", name=stored["sliders"][-1][0], exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert box.locator(".tinytorch-sentence").inner_text() == stored["sentences"][1]
    assert window.troubles == []


def test_a_screen_reader_hears_the_sentence(figure):
    _, box, _ = figure
    assert box.locator(".tinytorch-sentence").get_attribute("aria-live") == "polite"


def test_the_focused_handle_can_be_seen(figure):
    page, box, stored = figure
    handle = box.get_by_role("slider", name=stored["sliders"][0][0], exact=True)
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert handle.evaluate("handle => parseFloat(getComputedStyle(handle).outlineWidth)") >= 2
