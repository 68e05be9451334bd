"""Every page of the table of contents, as a reader finds it."""

import pytest

WIDE, NARROW = 1280, 390


def test_a_page_asks_no_other_host_and_reports_no_error(visit, book, document):
    window = visit(book)
    page = window.open(document)
    for heading in page.locator("article h2").all():  # what loads on sight loads now
        heading.scroll_into_view_if_needed()
    window.settle()
    assert window.troubles == []


def test_axe_finds_no_violation(visit, book, document):
    window = visit(book, width=WIDE)
    window.open(document)
    assert window.violations() == []


def test_axe_finds_no_text_too_pale_on_a_dark_page(visit, book, document):
    """Contrast takes axe most of its time, and is all that a theme changes."""
    window = visit(book, width=WIDE, theme="dark")
    page = window.open(document)
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert window.violations(rules=["color-contrast"]) == []


def test_a_narrow_page_never_scrolls_sideways_and_all_of_it_is_in_reach(visit, book, document):
    """What a narrow screen changes: where things lie, how large they are, and what has to be scrolled."""
    window = visit(book, width=NARROW)
    page = window.open(document)
    assert window.sideways_scroll() == 0
    stuck = page.evaluate(
        """() => [...document.querySelectorAll("article pre")]
            .filter((code) => code.scrollWidth > code.clientWidth + 1 && code.tabIndex < 0)
            .map((code) => code.textContent.slice(0, 80))"""
    )
    assert stuck == []
    assert window.violations(rules=["scrollable-region-focusable", "target-size"]) == []


def test_text_and_still_figures_need_no_script(visit, book, document):
    window = visit(book, scripts=False)
    page = window.page
    page.goto(f"{book}/{document}.html")
    assert page.locator("article h1").is_visible()
    assert all(first_stop.bounding_box()["height"] > 50 for first_stop in page.locator(".tinytorch-still svg").all())
    for figure in page.locator("figure.tinytorch-figure").all():
        assert figure.locator("svg").bounding_box()["height"] > 50
        assert figure.get_by_role("img").get_attribute("aria-label")
        assert figure.locator("figcaption").inner_text()


def test_every_picture_says_what_it_shows(visit, book, document):
    page = visit(book).open(document)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("article img, article [role=img]")]
            .filter((image) => !(image.alt || image.getAttribute("aria-label")))
            .map((image) => image.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_in_figures_can_be_read(visit, book, document, theme, contrast):
    page = visit(book, width=NARROW, theme=theme).open(document)
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    letters = page.evaluate(
        """() => [...document.querySelectorAll(".tinytorch-figure text, .tinytorch-frame text")].map((text) => {
            const { a, b } = text.getScreenCTM();
            const { fill, fontSize } = getComputedStyle(text);
            return { colour: fill, size: parseFloat(fontSize) * Math.hypot(a, b), words: text.textContent };
        })"""
    )
    pale = [letter for letter in letters if contrast(letter["colour"], ground) < 4.5]
    small = [letter for letter in letters if letter["size"] < 8]
    assert (pale, small) == ([], [])
