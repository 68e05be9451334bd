"""What the pages and the JSON interface show, on a real server."""

import csv
import importlib
import io
import re
from html.parser import HTMLParser

import httpx
import pytest

from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard, State
from tinytorch.benchmarks.tinymlperf.leaderboard.export import COLUMNS
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

boards = importlib.import_module("tests.20_benchmarking.boards")
serving = importlib.import_module("tests.20_benchmarking.serving")
DEADLINE, MINUTE, NOW, TASKS, report, scored = (
    boards.DEADLINE,
    boards.MINUTE,
    boards.NOW,
    boards.TASKS,
    boards.report,
    boards.scored,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A competition of five: two whose scores cannot be told apart, one below the target, one with nothing scored."""
    board = Leaderboard(f"sqlite:///{tmp_path_factory.mktemp('web') / 'board.db'}")
    board.create_competition(tasks=TASKS, deadline=DEADLINE, daily_quota=20, now=NOW)
    site = serving.Site(board, titles={"images": "Images <of> clothes"})
    site.members = {name: site.join(name) for name in ("Ada", "Bob", "Cleo", "Dan of Dover", "Eve")}
    for number, (name, speedup) in enumerate([("Ada", 8.0), ("Bob", 7.9), ("Cleo", 2.0), ("Ada", 4.0)]):
        scored(board, site.members[name][0], b"%d" % number, now=NOW + number * MINUTE, speedup=speedup)
    scored(board, site.members["Ada"][0], b"text", now=NOW + 9 * MINUTE, task="text", speedup=3.0)
    scored(board, site.members["Dan of Dover"][0], b"bad", now=NOW + 10 * MINUTE, passed=False)
    eve = site.members["Eve"][0]
    board.submit(eve, b"rejected", now=NOW)
    board.reject(board.lease("w", now=NOW), Rejected(Code.TIMEOUT, "it took <b>61 s</b>"), now=NOW)
    board.submit(eve, b"waits", now=NOW + MINUTE)
    yield site
    board.close()


@pytest.fixture(scope="module")
def web(site):
    with serving.served(site.app) as origin, httpx.Client(base_url=origin) as client:
        yield client


class Page(HTMLParser):
    """A page's tags and text; an error in their nesting is an AssertionError."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.rows = [], [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def page(answer: httpx.Response, status: int = 200) -> Page:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


PATHS = ["/", "/tasks/images", "/tasks/text", "/participants/Ada", "/submit", "/mine", "/queue", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_pages_are_whole_and_say_what_they_are_to_readers_of_any_kind(web, path):
    found = page(web.get(path), 404 if path == "/nothing" else 200)
    names = [tag for tag, _ in found.tags]
    assert [attributes["lang"] for tag, attributes in found.tags if tag == "html"] == ["en"]
    assert [names.count(tag) for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert "script" not in names
    assert not [attributes for _, attributes in found.tags if "style" in attributes]
    labels = {attributes["for"] for tag, attributes in found.tags if tag == "label"}
    assert {attributes["id"] for tag, attributes in found.tags if tag == "input"} == labels
    assert all(attributes.get("scope") for tag, attributes in found.tags if tag == "th")


@pytest.mark.parametrize("path", [*PATHS, "/api/leaderboard", "/leaderboard.csv", "/static/style.css", "/api/nothing"])
def test_every_answer_has_the_headers_that_forbid_things(web, path):
    headers = web.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_leaderboard_shows_intervals_and_equal_ranks(web):
    found = page(web.get("/tasks/images"))
    header, *rows = found.rows
    assert header[:4] == ["Rank", "Participant", "Score", "Interval"]
    assert [row[:2] for row in rows] == [
        ["1= equal", "Ada"], ["1= equal", "Bob"], ["3", "Cleo"], ["4", "Dan of Dover"]
    ]  # fmt: skip
    assert rows[0][2:6] == ["2,828", "2,814–2,843", "1,000", "met"]
    assert rows[3][5] == "not met"


def test_the_overall_page_counts_missing_tasks(web):
    _, *rows = page(web.get("/")).rows
    assert rows[0][:2] == ["1", "Ada"]
    assert {row[1]: row[5] for row in rows} == dict.fromkeys(("Bob", "Cleo", "Dan of Dover"), "not all met") | {
        "Ada": "all met"
    }


def test_names_and_titles_are_text_and_never_markup(web):
    answer = web.get("/tasks/images")
    assert "Images &lt;of&gt; clothes" in answer.text
    assert "/participants/Dan%20of%20Dover" in answer.text
    assert "Images <of> clothes" in page(answer).text


def test_a_participants_page_has_a_plot_that_says_what_it_shows_and_its_table(web):
    answer = web.get("/participants/Ada")
    found = page(answer)
    (plot,) = [attributes for tag, attributes in found.tags if tag == "svg" and "role" in attributes]
    named = {attributes.get("id") for tag, attributes in found.tags if tag in ("title", "desc")}
    assert set(plot["aria-labelledby"].split()) <= named
    assert "Images <of> clothes: 2 scored, the best with 2,828; text: 1 scored" in found.text
    marks = re.findall(r'class="mark" transform="translate\(([\d.]+) ([\d.]+)\)"', answer.text)
    assert len(marks) == 3
    _, *rows = found.rows
    assert [row[1] for row in rows] == ["1,732", "2,000", "2,828"]  # the last one first


@pytest.mark.parametrize("name", ["Eve", "Nobody", "x" * 200, "..%2f..%2fboard.db", "%00", "%F0%9F%90%9F"])
def test_who_has_nothing_on_the_board_looks_like_nobody(web, name):
    for path in ("/participants/", "/api/participants/"):
        answer = web.get(path + name)
        assert answer.status_code == 404
        words = answer.text
        assert "is on the leaderboard" in words or "Not Found" in words
        assert "Traceback" not in words


def test_long_rankings_have_pages(tmp_path):
    board = Leaderboard(f"sqlite:///{tmp_path / 'board.db'}")
    board.create_competition(tasks=["images"], deadline=DEADLINE, daily_quota=1, now=NOW)
    for number in range(101):
        scored(board, boards.join(board), b"%d" % number, speedup=1 + number / 10)
    with serving.served(serving.Site(board).app) as origin, httpx.Client(base_url=origin) as web:
        first, last = page(web.get("/")), page(web.get("/?page=2"))
        assert (len(first.rows), len(last.rows)) == (101, 2)
        assert ("a", {"href": "?page=2", "rel": "next"}) in first.tags
        assert last.rows[1][0] == "101"
        page(web.get("/?page=3"), 404)
        for wrong in ("0", "-1", "x", "1e9", "9" * 30):
            assert page(web.get(f"/?page={wrong}"), 422).text.count("invalid-request") == 2
    board.close()


def test_a_page_that_was_shown_is_another_after_an_evaluation(tmp_path):
    board = Leaderboard(f"sqlite:///{tmp_path / 'board.db'}")
    board.create_competition(tasks=TASKS, deadline=DEADLINE, daily_quota=2, now=NOW)
    ada, bob = boards.join(board, "Ada"), boards.join(board, "Bob")
    scored(board, ada, b"slow", speedup=2.0)
    with serving.served(serving.Site(board).app) as origin, httpx.Client(base_url=origin) as web:
        names = [[row[1] for row in page(web.get(path)).rows[1:]] for path in ("/", "/tasks/images", "/tasks/text")]
        assert names == [["Ada"], ["Ada"], []]
        scored(board, bob, b"fast", speedup=4.0)
        scored(board, ada, b"text", task="text", speedup=8.0)
        names = [[row[1] for row in page(web.get(path)).rows[1:]] for path in ("/", "/tasks/images", "/tasks/text")]
        assert names == [["Ada", "Bob"], ["Bob", "Ada"], ["Ada"]]
        assert page(web.get("/")).text == page(web.get("/")).text
    board.close()


def test_an_empty_board_says_so(tmp_path):
    board = Leaderboard(f"sqlite:///{tmp_path / 'board.db'}")
    board.create_competition(tasks=["images"], deadline=DEADLINE, daily_quota=1, now=NOW)
    with serving.served(serving.Site(board).app) as origin:
        assert "Nothing has been scored yet" in httpx.get(origin).text
        assert "0 waiting" in httpx.get(f"{origin}/queue").text
    board.close()


def test_the_csv_and_the_json_hold_the_ranking(web):
    answer = web.get("/leaderboard.csv", params={"task": "images"})
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''tinymlperf-images.csv"
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    objects = web.get("/api/leaderboard", params={"task": "images"}).json()["ranking"]
    assert tuple(rows[0]) == tuple(objects[0]) == COLUMNS
    assert [row["participant"] for row in rows] == [one["participant"] for one in objects]
    assert [float(row["score"]) for row in rows] == [one["score"] for one in objects]
    assert web.get("/leaderboard.csv", params={"task": "=1+1"}).status_code == 404


def test_the_json_interface_says_the_rules_and_the_queue(web):
    rules = web.get("/api/competition").json()
    assert (rules["tasks"], rules["daily_quota"], rules["deadline"]) == (TASKS, 20, "2026-04-01T12:00:00Z")
    assert "seed" not in str(rules)
    queue = web.get("/api/queue").json()
    assert queue["states"] == {"queued": 1, "scored": 6, "rejected": 1}
    assert web.get("/api/health").json() == {"status": "ok"}


def test_openapi_describes_every_path_and_nothing_is_loaded_from_elsewhere(web):
    description = web.get("/api/openapi.json").json()
    assert set(description["paths"]) == {
        "/api/health", "/api/competition", "/api/leaderboard", "/api/participants/{pseudonym}", "/api/queue",
        "/api/submissions", "/api/submissions/{number}",
    }  # fmt: skip
    assert description["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "requestBody" in description["paths"]["/api/submissions"]["post"]
    assert [web.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]


def test_one_sees_ones_own_submissions_with_the_token_alone(site, web):
    token = site.members["Eve"][1]["Authorization"].removeprefix("Bearer ")
    answer = web.post("/mine", data={"token": f" {token}\n"})
    found = page(answer)
    assert [row[1] for row in found.rows[1:]] == ["waiting for a worker", "rejected: timeout, it took <b>61 s</b>"]
    assert answer.headers["cache-control"] == "no-store"
    assert token not in answer.text
    own = web.get("/api/submissions", headers=site.members["Eve"][1]).json()
    assert [(one["state"], one["code"]) for one in own] == [("queued", None), ("rejected", "timeout")]


def test_anothers_submission_looks_like_none(site, web):
    headers = site.members["Eve"][1]
    own = web.get("/api/submissions", headers=headers).json()[0]["submission"]
    assert web.get(f"/api/submissions/{own}", headers=headers).json()["state"] == State.QUEUED
    for number in (1, 10_000, 10**30):
        answer = web.get(f"/api/submissions/{number}", headers=headers)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"you have no submission {number}"


def test_errors_have_a_code_and_a_sentence(web):
    assert web.get("/api/nothing").json()["error"]["code"] == "http-404"
    assert web.delete("/api/queue").json()["error"]["code"] == "http-405"
    assert web.get("/api/leaderboard", params={"task": "sound"}).json()["error"] == {
        "code": "not-found", "message": "there is no task 'sound'; there are overall, images, text"
    }  # fmt: skip


def test_a_failure_tells_nothing_of_itself(tmp_path):
    board = Leaderboard(f"sqlite:///{tmp_path / 'board.db'}")
    with serving.served(serving.Site(board).app) as origin:  # its competition was not created
        assert httpx.get(f"{origin}/api/health").status_code == 404
        board.database = None
        for path in ("/", "/api/health"):
            answer = httpx.get(origin + path)
            assert answer.status_code == 500
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert "internal-error" in answer.text
            assert not re.search("Traceback|NoneType|database|board.db|\\.py", answer.text)
