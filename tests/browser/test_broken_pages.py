"""The checks see what they are there to see: each is run on a page that is broken in one way."""

import pytest

PAGE = """<!doctype html><html lang="en" data-theme="light"><head><title>Page</title>
<link rel="icon" href="data:,"></head><body><main><article><h1>Page</h1>{}</article></main></body></html>"""


@pytest.fixture
def broken(tmp_path, serve, visit, book):
    """Return a function that opens a page with the given body."""

    def open_page(body, width=1280):
        (tmp_path / "page.html").write_text(PAGE.format(body))
        window = visit(serve(tmp_path), width=width)
        window.open("page")
        window.settle()
        return window

    return open_page


def test_a_sound_page_passes(broken):
    window = broken("<p>Sound.</p>")
    assert (window.troubles, window.violations(), window.sideways_scroll()) == ([], [], 0)


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        ('<script src="https://cdn.example/require.js"></script>', "external request: https://cdn.example/require.js"),
        ('<img alt="A dot." src="http://cdn.example/dot.png">', "external request: http://cdn.example/dot.png"),
        ('<script src="missing.js"></script>', "404: "),
        ("<script>console.error('out of order')</script>", "console: out of order"),
        ("<script>throw new Error('thrown')</script>", "page error: thrown"),
    ],
)
def test_trouble_is_noticed(broken, body, trouble):
    assert [seen for seen in broken(body).troubles if trouble in seen]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<div role="slider" tabindex="0" aria-valuenow="3">.</div>', "aria-input-field-name"),
        ('<p style="color: #999; background: #fff">Too pale.</p>', "color-contrast"),
        ('<img src="data:,">', "image-alt"),
        (
            '<div style="overflow: auto; width: 9em"><pre>' + "wide " * 50 + "</pre></div>",
            "scrollable-region-focusable",
        ),
        ('<details><summary>Solution</summary><p style="color: #999">Pale.</p></details>', "color-contrast"),
    ],
)
def test_a_violation_is_noticed(broken, body, rule):
    assert [seen for seen in broken(body).violations() if seen.startswith(rule)]


def test_a_page_wider_than_the_screen_is_noticed(broken):
    assert broken('<p style="width: 500px">Wide.</p>', width=390).sideways_scroll() > 0
