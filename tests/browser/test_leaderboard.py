"""The competition's pages in a browser: light, dark, narrow, by keyboard, and without scripts."""

import importlib

import pytest

from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

boards = importlib.import_module("tests.20_benchmarking.boards")
serving = importlib.import_module("tests.20_benchmarking.serving")
WIDE, NARROW = 1280, 390
TITLES = {"images": "Image classification", "text": "A model of language"}
NAME = "a-pseudonym-of-forty-letters-is-the-most"
PATHS = ["/", "/tasks/images", f"/participants/{NAME}", "/submit", "/mine", "/queue"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A competition in which two have scored some submissions, and one has had one rejected."""
    board = Leaderboard(f"sqlite:///{tmp_path_factory.mktemp('web') / 'board.db'}")
    board.create_competition(tasks=boards.TASKS, deadline=boards.DEADLINE, daily_quota=20, now=boards.NOW)
    site = serving.Site(board, titles=TITLES)
    site.member, headers = site.join(NAME)
    site.token = headers["Authorization"].removeprefix("Bearer ")
    for number in range(6):
        for participant in (site.member, boards.join(board)):
            task, now = boards.TASKS[number % 2], boards.NOW + number * 1000 * boards.MINUTE
            content = b"%d of %d" % (number, participant.id)
            boards.scored(board, participant, content, now, task=task, speedup=2.0 + number, spread=0.2)
    board.submit(site.member, b"rejected", now=boards.NOW)
    rejection = Rejected(Code.TIMEOUT, "the run took longer than the 60 s that the limits allow")
    board.reject(board.lease("w", now=boards.NOW), rejection, now=boards.NOW)
    yield site
    board.close()


@pytest.fixture(scope="module")
def origin(site):
    with serving.served(site.app) as origin:
        yield origin


def go(window, path):
    window.page.goto(window.origin + path)
    return window.page


@pytest.mark.parametrize(("theme", "width"), [("light", WIDE), ("dark", NARROW)])
def test_axe_finds_nothing_and_no_page_scrolls_sideways(visit, origin, theme, width):
    window = visit(origin, theme=theme, width=width)
    for path in PATHS:
        go(window, path)
        assert window.violations() == [], path
        assert window.sideways_scroll() == 0, path
    assert window.troubles == []


def test_dark_is_dark_and_light_is_light(visit, origin, contrast):
    grounds = {}
    for theme in ("light", "dark"):
        page = go(visit(origin, theme=theme), "/")
        grounds[theme] = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert contrast(grounds[theme], {"light": "rgb(0, 0, 0)", "dark": "rgb(255, 255, 255)"}[theme]) > 15
        page.goto(f"{origin}/participants/{NAME}")
        marks = page.locator(".plot .mark").first.evaluate("(mark) => getComputedStyle(mark).fill")
        assert contrast(marks, grounds[theme]) > 3


def test_letters_of_the_plot_can_be_read_on_a_narrow_screen(visit, origin):
    page = go(visit(origin, width=NARROW), f"/participants/{NAME}")
    sizes = page.evaluate(
        """() => [...document.querySelectorAll(".plot text")].map((text) => {
            const { a, b } = text.getScreenCTM();
            return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
        })"""
    )
    assert sizes
    assert min(sizes) >= 8
    assert page.get_by_role("img", name="Scores over time").is_visible()


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_student_sends_a_file_and_sees_it_with_no_script(visit, site, origin, width):
    page = go(visit(origin, width=width, scripts=False), "/")
    assert page.get_by_role("link", name=NAME).is_visible()
    page.get_by_role("link", name="Submit", exact=True).click()
    page.get_by_label("Your token").fill(site.token)
    file = {"name": "submission.safetensors", "mimeType": "application/octet-stream", "buffer": b"%d" % width * 999}
    page.get_by_label("The file").set_input_files(file)
    page.get_by_role("button", name="Send").click()
    assert page.get_by_role("heading", name="Received").is_visible()
    assert site.checked[-1] == file["buffer"]
    page.get_by_role("link", name="Your submissions", exact=True).click()
    page.get_by_label("Your token").fill(site.token)
    page.get_by_role("button", name="Show them").click()
    assert page.get_by_role("cell", name="waiting for a worker").first.is_visible()
    assert page.get_by_role("cell", name="rejected: timeout").is_visible()
    assert site.token not in page.url + page.content()


@pytest.mark.parametrize("path", ["/", "/tasks/images"])
def test_a_ranking_fits_into_its_window_and_has_more_columns_in_a_wide_one(visit, origin, path):
    headers = {}
    for width in (NARROW, WIDE):
        page = go(visit(origin, width=width), path)
        table = page.get_by_role("region", name="Ranking")
        assert table.evaluate("(region) => region.scrollWidth - region.clientWidth") == 0
        headers[width] = table.get_by_role("columnheader").all_inner_texts()
        assert table.get_by_role("link", name=NAME).is_visible()
    assert headers[NARROW] == headers[WIDE][:4] == ["Rank", "Participant", "Score", "Interval"]
    assert headers[WIDE][-1] == "Received"


def test_the_content_can_be_reached_and_the_table_scrolled_by_keyboard(visit, origin):
    page = go(visit(origin, width=NARROW), f"/participants/{NAME}")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    assert skip.evaluate("(link) => link === document.activeElement && link.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    table = page.get_by_role("region", name="Scored submissions")
    for _ in range(8):
        page.keyboard.press("Tab")
        if table.evaluate("(region) => region === document.activeElement"):
            break
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(region) => region.scrollLeft > 0", arg=table.element_handle())
