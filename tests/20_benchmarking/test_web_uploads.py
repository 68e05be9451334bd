"""What is sent is counted, checked and queued, or refused with a code; then nothing of it is left."""

import hashlib
import importlib
import socket
from datetime import timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.benchmarks.tinymlperf.web import Rates
from tinytorch.benchmarks.tinymlperf.web.rates import Buckets, Rate, network

boards = importlib.import_module("tests.20_benchmarking.boards")
serving = importlib.import_module("tests.20_benchmarking.serving")
DEADLINE, MINUTE, NOW = boards.DEADLINE, boards.MINUTE, boards.NOW
LARGEST = 3 * 2**20
PLENTY = Rates(Rate(10_000, 100), Rate(10_000, 100), Rate(10_000, 100))


@pytest.fixture
def start(make):
    """Return a function that makes a competition, to be served: start(rates=...)."""

    def create(daily_quota=3, rates=PLENTY, **options):
        return serving.Site(make(daily_quota, max_bytes=LARGEST), rates=rates, **options)

    return create


@pytest.fixture
def site(start):
    return start()


@pytest.fixture
def web(site):
    with serving.served(site.app) as origin, httpx.Client(base_url=origin, timeout=60) as client:
        yield client


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def form(web, headers, content, name="submission.safetensors"):
    token = headers["Authorization"].removeprefix("Bearer ")
    return web.post("/submit", data={"token": token}, files={"file": (name, content)})


def connect(web):
    return socket.create_connection((web.base_url.host, web.base_url.port), timeout=30)


def head(path, headers, length):
    """Return the beginning of an upload."""
    kind = "Content-Type: multipart/form-data; boundary=x"
    lines = [f"POST {path} HTTP/1.1", "Host: x", length, kind, f"Authorization: {headers['Authorization']}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def wait(web, condition):
    """Ask the server for small things until something is so."""
    for _ in range(1000):
        if condition():
            return
        web.get("/static/icon.svg")
    pytest.fail("it never came to be so")


def left_over(site):
    return [path.name for path in site.board.files.folder.iterdir() if path.is_file()]


def test_a_file_is_checked_and_queued(site, web):
    _, headers = site.join()
    content = bytes(range(256)) * 10_000
    answer = web.post("/api/submissions", content=content, headers=headers)
    body = answer.json()
    assert (answer.status_code, body["new"], body["state"], body["quota_left"]) == (201, True, "queued", 2)
    assert body["content_hash"] == hashlib.sha256(content).hexdigest()
    assert site.checked == [content]
    assert site.board.lease("w", now=NOW).path.read_bytes() == content
    again = web.post("/api/submissions", content=content, headers=headers)
    assert (again.status_code, again.json()["new"], again.json()["submission"]) == (200, False, body["submission"])
    assert left_over(site) == []


def test_the_form_does_the_same(site, web):
    _, headers = site.join()
    content = bytes(range(256)) * 10_000
    answer = form(web, headers, content)
    assert answer.status_code == 200
    assert hashlib.sha256(content).hexdigest() in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "<h1>Received before</h1>" in form(web, headers, content).text
    assert len(site.board.attempts(site.board.authenticate(headers["Authorization"][7:]))) == 1


def test_a_file_that_the_check_refuses_costs_nothing_and_is_not_kept(site, web):
    ada, headers = site.join()
    site.refusal = "bad-header: the header is <b>no</b> JSON"
    answer = web.post("/api/submissions", content=b"hostile", headers=headers)
    assert code(answer) == (422, "bad-header")
    assert answer.json()["error"]["message"] == "the header is <b>no</b> JSON"
    page = form(web, headers, b"hostile")
    assert page.status_code == 422
    assert "<code>bad-header</code>: the header is &lt;b&gt;no&lt;/b&gt; JSON" in page.text
    assert site.board.attempts(ada) == []
    assert site.board.quota_left(ada, now=NOW) == 3
    assert list(site.board.files.folder.rglob("*")) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + "x" * 43},
        {"Authorization": "Basic " + "x" * 43},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
def test_without_a_good_token_nothing_is_read_or_kept(site, web, headers):
    site.join()
    for answer in (
        web.post("/api/submissions", content=b"weights", headers=headers),
        web.get("/api/submissions", headers=headers),
    ):
        assert code(answer) == (401, "unknown-token")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert site.checked == []
    assert left_over(site) == []


def test_the_form_needs_a_token_and_a_file(site, web):
    _, headers = site.join()
    token = headers["Authorization"].removeprefix("Bearer ")
    assert web.post("/submit").status_code == 401
    assert web.post("/submit", data={"token": "x"}, files={"file": b"weights"}).status_code == 401
    for wrong in ({"data": {"token": token}}, {"data": {"token": token, "file": "text"}}):
        answer = web.post("/submit", **wrong)
        assert (answer.status_code, "no-file" in answer.text) == (400, True)
    assert form(web, headers, b"").status_code == 400
    assert site.checked == []


@pytest.mark.parametrize(
    "body", [b"", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", b"\0" * 99]
)
def test_a_broken_form_is_refused(web, body):
    answer = web.post("/submit", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 401)
    assert "Traceback" not in answer.text


def test_the_largest_file_is_taken_and_one_byte_more_is_not(site, web):
    _, headers = site.join()
    assert web.post("/api/submissions", content=bytes(LARGEST), headers=headers).status_code == 201
    assert code(web.post("/api/submissions", content=bytes(LARGEST + 1), headers=headers)) == (413, "too-large")
    assert form(web, headers, bytes(LARGEST - 1)).status_code == 200
    assert form(web, headers, bytes(LARGEST + 1)).status_code == 413
    assert left_over(site) == []


def test_a_body_without_a_length_is_counted_as_it_comes(site, web):
    _, headers = site.join()
    more = LARGEST + 2**15
    with connect(web) as connection:
        connection.sendall(head("/api/submissions", headers, "Transfer-Encoding: chunked"))
        connection.sendall(b"%x\r\n" % (2 * more) + bytes(more))  # half of what the piece announces
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert left_over(site) == []
    assert site.checked == []


@pytest.mark.parametrize("path", ["/submit", "/api/submissions", "/mine"])
def test_a_length_above_the_limit_is_refused_before_anything_is_sent(site, web, path):
    _, headers = site.join()
    with connect(web) as connection:
        connection.sendall(head(path, headers, "Content-Length: 99999999999"))
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert left_over(site) == []


def test_other_pages_take_small_bodies_alone(web):
    assert web.post("/mine", data={"token": "x" * 20_000}).status_code == 413


def test_an_upload_that_stops_leaves_nothing(site, web):
    _, headers = site.join()
    with connect(web) as connection:
        connection.sendall(head("/api/submissions", headers, "Content-Length: 1000") + bytes(10))
        wait(web, lambda: left_over(site) != [])
    wait(web, lambda: left_over(site) == [])
    assert site.checked == []
    assert web.get("/api/queue").json()["states"] == {}


def test_an_upload_that_takes_too_long_is_refused(start):
    site = start(upload_seconds=0.05)
    _, headers = site.join()
    with serving.served(site.app) as origin, httpx.Client(base_url=origin) as web, connect(web) as connection:
        connection.sendall(head("/api/submissions", headers, "Content-Length: 1000") + bytes(10))
        assert connection.recv(12) == b"HTTP/1.1 408"
    assert left_over(site) == []


def test_the_quota_and_the_deadline_are_said(site, web):
    _, headers = site.join()
    for number in range(3):
        web.post("/api/submissions", content=b"%d" % number, headers=headers)
    assert code(web.post("/api/submissions", content=b"more", headers=headers)) == (429, "quota-exhausted")
    assert web.post("/api/submissions", content=b"0", headers=headers).status_code == 200
    site.now = DEADLINE + MINUTE
    assert code(web.post("/api/submissions", content=b"late", headers=headers)) == (403, "deadline-passed")


def test_one_participant_cannot_ask_without_end_and_others_still_can(start):
    site = start(rates=Rates(Rate(10_000, 1), Rate(10_000, 1), Rate(2, 0.1)))
    (_, ada), (_, bob) = site.join(), site.join()
    with serving.served(site.app) as origin, httpx.Client(base_url=origin) as web:
        assert [web.get("/api/submissions", headers=ada).status_code for _ in range(3)] == [200, 200, 429]
        refused = web.post("/api/submissions", content=b"weights", headers=ada)
        assert (*code(refused), refused.headers["retry-after"]) == (429, "too-many-requests", "10")
        assert web.get("/api/submissions", headers=bob).status_code == 200
        site.now += timedelta(seconds=10)
        assert web.get("/api/submissions", headers=ada).status_code == 200
    assert site.checked == []


def test_one_address_cannot_upload_or_ask_without_end(start):
    site = start(rates=Rates(Rate(5, 1), Rate(2, 1), Rate(100, 1)))
    with serving.served(site.app) as origin, httpx.Client(base_url=origin) as web:
        statuses = [web.post("/submit").status_code for _ in range(3)] + [web.get("/").status_code for _ in range(3)]
        assert statuses == [401, 401, 429, 200, 200, 429]
        assert web.get("/static/style.css").status_code == 200


@given(st.lists(st.floats(0, 10), max_size=50), st.integers(1, 5), st.floats(0.1, 5))
def test_a_bucket_lets_through_its_burst_and_its_rate_and_no_more(waits, burst, rate):
    clock = [NOW]
    buckets, passed, begun = Buckets(Rate(burst, rate), lambda: clock[0]), 0, NOW
    for wait in waits:
        clock[0] += timedelta(seconds=wait)
        until = buckets.take("key")
        passed += until == 0
        elapsed = (clock[0] - begun).total_seconds()
        assert passed <= burst + elapsed * rate + 1e-3
        if until:
            clock[0] += timedelta(seconds=until + 1e-3)
            assert buckets.take("key") == 0
            passed += 1


def test_buckets_forget_whoever_asked_longest_ago():
    buckets = Buckets(Rate(1, 1e-9), lambda: NOW, keys=2)
    assert [buckets.take(key) > 0 for key in "abacab"] == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("address", "household"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_addresses_of_one_household_share_a_bucket(address, household):
    assert network(address) == household


def test_a_rate_that_lets_nobody_in_is_refused():
    with pytest.raises(ValueError, match="lets nobody in"):
        Rate(0, 1)
