"""The simulated server against one that is worked out step by step, and what holds for every workload."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.caching.server import Requests, Server, simulate, users_that_fit


def step_by_step(server: Server, requests: Requests) -> dict[str, list]:
    """The rules of the module's docstring, one step after the other, with pages counted anew each time."""
    pages_of = (lambda length: -(-length // server.page_size)) if server.page_size else (lambda length: 1)
    time, arrived, waiting, running, places = 0.0, [0], [], [], 0
    text = {r: int(requests.prompt[r]) for r in range(len(requests.arrival))}  # tokens that each has
    first, finish, preempted = {}, {}, 0
    busy = sequence_time = token_time = 0.0

    def arrive(now: float) -> None:
        while arrived[0] < len(text) and requests.arrival[arrived[0]] <= now:
            waiting.append(arrived[0])
            arrived[0] += 1

    while len(finish) < len(text):
        arrive(time)
        if server.is_continuous or not running:
            places = len(running)
            while waiting and places < server.max_batch:
                candidate = waiting[0]
                grown = [text[r] + 1 for r in [*running, candidate]]
                if server.page_size is None:
                    grown = [1] * len(grown)
                if sum(map(pages_of, grown)) > server.pages:
                    break
                running.append(waiting.pop(0))
                time += server.prefill_seconds * text[candidate]
                places += 1
                arrive(time)
        if not running:
            time = max(time, float(requests.arrival[arrived[0]]))
            continue
        if server.page_size and sum(pages_of(text[r] + 1) for r in running) > server.pages:
            waiting.insert(0, running.pop())
            preempted += 1
            continue
        each = server.step_seconds + server.sequence_seconds * places
        time, busy, sequence_time = time + each, busy + each, sequence_time + each * len(running)
        for r in running:
            text[r] += 1
            first.setdefault(r, time)
        assert sum(pages_of(text[r]) for r in running) <= server.pages
        token_time += each * sum(text[r] for r in running)
        for r in list(running):
            if text[r] == requests.prompt[r] + requests.new[r]:
                finish[r] = time
                running.remove(r)
    order = range(len(text))
    return {"first": [first[r] for r in order], "finish": [finish[r] for r in order], "preempted": preempted,
            "seconds": time, "sequences": sequence_time / busy,
            "utilisation": token_time / busy / server.tokens}  # fmt: skip


@st.composite
def workloads(draw):
    count, longest = draw(st.integers(1, 12)), 12
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    prompt = rng.integers(1, longest // 2 + 1, count)
    new = rng.integers(1, longest // 2 + 1, count)
    arrival = np.cumsum(rng.choice([0.0, 0.5, 3.0, 20.0], count))
    server = Server(
        tokens=draw(st.integers(16, 60)), max_seq_len=longest, page_size=draw(st.sampled_from([None, 1, 2, 4])),
        is_continuous=draw(st.booleans()), max_batch=draw(st.sampled_from([1, 2, 5, 50])), step_seconds=1.0,
        sequence_seconds=draw(st.sampled_from([0.0, 0.25])), prefill_seconds=draw(st.sampled_from([0.0, 0.125])),
    )  # fmt: skip
    return server, Requests(arrival, prompt, new)


@settings(max_examples=300)
@given(workloads())
def test_from_event_to_event_is_the_same_as_step_by_step(workload):
    server, requests = workload
    found, expected = simulate(server, requests), step_by_step(server, requests)
    np.testing.assert_allclose(found.first, expected["first"])
    np.testing.assert_allclose(found.finish, expected["finish"])
    assert found.preemptions == expected["preempted"]
    for name in ("seconds", "sequences", "utilisation"):
        assert getattr(found, name) == pytest.approx(expected[name])
    assert 0 < found.utilisation <= 1
    assert 0 < found.sequences <= server.max_batch


@given(workloads())
def test_first_tokens_come_in_the_order_of_arrival(workload):
    server, requests = workload
    assert (np.diff(simulate(server, requests).first) >= 0).all()


def test_the_youngest_gives_its_pages_back_and_goes_on_where_it_was():
    """There are 3 pages of 2 tokens. When both texts have 2, both need one more, and one is left."""
    server = Server(6, 6, page_size=2, step_seconds=1.0, sequence_seconds=0.0, prefill_seconds=0.0)
    found = simulate(server, Requests(np.zeros(2), np.array([1, 1]), np.array([3, 3])))
    assert found.preemptions == 1
    assert found.first.tolist() == [1, 1]
    assert found.finish.tolist() == [3, 5]  # two tokens are not made again


def test_a_request_alone_takes_its_prompt_and_its_steps():
    server = Server(100, 50, step_seconds=1.0, sequence_seconds=0.5, prefill_seconds=0.25)
    found = simulate(server, Requests(np.array([3.0]), np.array([8]), np.array([10])))
    assert found.first[0] == 3 + 8 * 0.25 + 1.5
    assert found.finish[0] == found.seconds == 3 + 8 * 0.25 + 10 * 1.5
    assert found.tokens_per_second == 10 / found.seconds
    assert found.sequences == 1
    assert found.utilisation == pytest.approx(np.mean(8 + np.arange(1, 11)) / 100)


def loaded(count: int = 3000) -> Requests:
    return Requests.sample(count, 8.0, np.random.default_rng(0))


def test_pages_and_continuous_batching_serve_more_than_neither():
    """Kwon et al. report 2 to 4 times as many requests; how much it is here depends on the assumptions."""
    kinds = {(page, continuous): simulate(Server(30_000, page_size=page, is_continuous=continuous), loaded())
             for page in (None, 16) for continuous in (False, True)}  # fmt: skip
    assert kinds[16, True].tokens_per_second > 2 * kinds[None, True].tokens_per_second
    assert kinds[None, True].tokens_per_second > 1.2 * kinds[None, False].tokens_per_second
    assert kinds[16, True].utilisation > 0.8
    assert kinds[None, True].utilisation < 0.4


def test_everybody_is_served_and_nobody_before_arriving():
    found = simulate(Server(30_000), loaded())
    assert (found.first > found.requests.arrival).all()
    assert (found.finish >= found.first).all()
    assert found.wait(50) <= found.wait(99)
    assert found.latency(50) <= found.latency(99)
    assert found.preemptions > 0


def test_a_hundred_thousand_requests_run_to_their_end():
    requests = Requests.sample(100_000, 20.0, np.random.default_rng(1))
    found = simulate(Server(200_000), requests)
    assert len(found.finish) == 100_000
    assert math.isfinite(found.tokens_per_second)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(30, 300), st.sampled_from([None, 1, 4, 16]))
def test_users_fit_as_long_as_their_pages_do(lengths, tokens, page):
    server = Server(max(tokens, 32), 30, page)
    count = users_that_fit(server, np.array(lengths))
    pages = [-(-length // page) if page else 1 for length in lengths]
    assert sum(pages[:count]) <= server.pages
    assert count == len(lengths) or sum(pages[: count + 1]) > server.pages


def test_no_fewer_fit_in_pages_than_without():
    lengths = np.random.default_rng(0).integers(1, 65, 500)
    fit = [users_that_fit(Server(4096, 64, page), lengths) for page in (None, 16, 1)]
    assert fit[0] == 64
    assert fit[0] < fit[1] < fit[2]


@given(st.lists(st.integers(1, 24), max_size=40), st.integers(24, 200), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
def test_pages_that_divide_the_longest_text_never_hold_fewer_users(lengths, tokens, page):
    fit = [users_that_fit(Server(tokens, 24, size), np.array(lengths, int)) for size in (None, page)]
    assert fit[0] <= fit[1]


@pytest.mark.parametrize("lengths", [[3, 0], [-5, 3], [3, 51]])
def test_texts_that_cannot_be_are_refused(lengths):
    with pytest.raises(ValueError, match=f"max_seq_len 50, not {min(lengths)} to {max(lengths)}"):
        users_that_fit(Server(100, 50), np.array(lengths))


REFUSED = {
    "tokens": {"tokens": 0}, "max_batch": {"max_batch": 0}, "a page": {"page_size": 0},
    "times": {"prefill_seconds": -1.0}, "takes some": {"step_seconds": 0.0},
    "does not hold": {"tokens": 40, "max_seq_len": 64}, "inf": {"sequence_seconds": math.inf},
    "nan": {"step_seconds": math.nan},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_bad_servers_are_refused(message):
    with pytest.raises(ValueError, match=message):
        Server(**({"tokens": 100, "max_seq_len": 50} | REFUSED[message]))


ORDER, TOKENS, SHAPES, COUNTED = "order of their arrival", "1 or more", "of one length", "in integers"
BAD = [
    ([1, 0], [1, 1], [1, 1], ORDER), ([], [], [], ORDER), ([0, np.inf], [1, 1], [1, 1], ORDER),
    ([0, np.nan], [1, 1], [1, 1], ORDER), ([0], [0], [1], TOKENS), ([0], [1], [0], TOKENS), ([0], [30], [30], TOKENS),
    ([0], [1, 2, 3], [1, 2, 3], SHAPES), ([0, 1], [1], [1], SHAPES), ([[0]], [[1]], [[1]], SHAPES),
    ([0], [1.5], [2], COUNTED), ([0], [1], [2.0], COUNTED),
]  # fmt: skip


@pytest.mark.parametrize(("arrival", "prompt", "new", "message"), BAD)
def test_bad_requests_are_refused(arrival, prompt, new, message):
    prompt, new = (np.array(tokens, None if tokens else int) for tokens in (prompt, new))
    with pytest.raises(ValueError, match=message):
        simulate(Server(100, 50), Requests(np.array(arrival, float), prompt, new))


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"rate": np.nan}, {"prompt": 0.0}, {"new": -1.0}, {"longest": 1}])
def test_requests_that_cannot_be_drawn_are_refused(bad):
    with pytest.raises(ValueError, match="must be above 0 and longest above 1"):
        Requests.sample(3, rng=np.random.default_rng(0), **({"rate": 1.0} | bad))


@given(st.integers(2, 60), st.integers(0, 1000))
def test_drawn_requests_are_no_longer_than_the_longest(longest, seed):
    drawn = Requests.sample(50, 1.0, np.random.default_rng(seed), longest=longest)
    assert min(drawn.prompt.min(), drawn.new.min()) >= 1
    assert (drawn.prompt + drawn.new).max() <= longest
    assert (np.diff(drawn.arrival) >= 0).all()
