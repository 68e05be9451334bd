"""No submission is evaluated twice at once, none is lost, and nothing is taken of a lease that is over."""

import collections
import importlib
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard, LeaseLost, State
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

boards = importlib.import_module("tests.20_benchmarking.boards")
DEADLINE, MINUTE, NOW, join, report = boards.DEADLINE, boards.MINUTE, boards.NOW, boards.join, boards.report
LEASE = 5 * MINUTE


def fill(board, count):
    ada = join(board)
    return ada, [board.submit(ada, b"%d" % n, now=NOW + n * timedelta(seconds=1)).submission for n in range(count)]


def test_what_came_first_is_leased_first(board):
    _, numbers = fill(board, 5)
    assert [board.lease("w", now=NOW + MINUTE).submission for _ in numbers] == numbers
    assert board.lease("w", now=NOW + MINUTE) is None


def test_an_expired_lease_is_the_next_workers(board):
    fill(board, 1)
    first = board.lease("slow", now=NOW)
    assert board.lease("other", now=NOW + LEASE - timedelta(microseconds=1)) is None
    second = board.lease("other", now=NOW + LEASE)
    assert (second.submission, second.attempt, second.worker) == (first.submission, 2, "other")
    assert second.fence > first.fence


@pytest.mark.parametrize("taken_over", [False, True])
def test_nothing_is_taken_of_a_lease_that_is_over(board, taken_over):
    ada, (number,) = fill(board, 1)
    late = board.lease("slow", now=NOW)
    if taken_over:
        holder = board.lease("other", now=NOW + LEASE)
    for act in (
        lambda: board.score(late, report(), now=NOW + LEASE),
        lambda: board.reject(late, Rejected(Code.TIMEOUT, "slow"), now=NOW + LEASE),
        lambda: board.fail(late, "slow", now=NOW + LEASE),
        lambda: board.heartbeat(late, now=NOW + LEASE),
    ):
        with pytest.raises(LeaseLost, match="slow's lease 1 of submission"):
            act()
    assert board.attempt(ada, number).state == State.LEASED
    if taken_over:
        board.score(holder, report(), now=NOW + LEASE + MINUTE)
        assert len(board.entries()) == 1


def test_a_report_is_taken_once(board):
    fill(board, 1)
    lease = board.lease("w", now=NOW)
    board.score(lease, report(), now=NOW)
    with pytest.raises(LeaseLost):
        board.score(lease, report(speedup=30.0), now=NOW)
    assert [entry.score.value for entry in board.entries()] == [report()["score"][1]]


def test_a_heartbeat_renews_a_lease(board):
    fill(board, 1)
    lease = board.lease("w", now=NOW)
    for beat in range(1, 5):
        lease = board.heartbeat(lease, now=NOW + beat * (LEASE - MINUTE))
        assert board.lease("other", now=NOW + beat * (LEASE - MINUTE) + MINUTE) is None
    board.score(lease, report(), now=lease.expires - timedelta(microseconds=1))


def test_a_submission_whose_leases_all_expire_is_given_up(make):
    board = make(max_attempts=3, daily_quota=1)
    ada, (number,) = fill(board, 1)
    for attempt in range(3):
        assert board.lease("w", now=NOW + attempt * LEASE).attempt == attempt + 1
    assert board.lease("w", now=NOW + 3 * LEASE) is None
    assert board.attempt(ada, number).state == State.INFRASTRUCTURE_FAILURE
    assert board.quota_left(ada, now=NOW) == 1
    kinds = [happening.kind for happening in board.history(number)]
    assert kinds == ["received", "queued", *["leased", "lease-expired"] * 3, "infrastructure-failure"]


def test_giving_one_up_does_not_stop_the_queue(make):
    board = make(max_attempts=1)
    _, numbers = fill(board, 3)
    board.lease("w", now=NOW + MINUTE)
    board.lease("w", now=NOW + MINUTE)
    assert board.lease("w", now=NOW + MINUTE + LEASE).submission == numbers[2]


def test_workers_at_once_never_share_a_submission(make):
    board = make(daily_quota=100)
    _, numbers = fill(board, 40)
    together = threading.Barrier(8)

    def work(name):
        together.wait()
        taken = []
        while (lease := board.lease(name, now=NOW + MINUTE)) is not None:
            taken.append(lease.submission)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [number for found in pool.map(work, [f"w{n}" for n in range(8)]) for number in found]
    assert sorted(taken) == numbers


def test_with_workers_that_die_everything_is_still_scored_once(make):
    """Each worker abandons every third lease; leases end as the common clock goes on."""
    board = make(daily_quota=100, max_attempts=100)
    _, numbers = fill(board, 30)
    clock, turn = [NOW + MINUTE], threading.Lock()

    def work(name):
        done, leases = [], 0
        while board.queue().counts.get(State.SCORED, 0) < len(numbers):
            with turn:
                clock[0] += timedelta(seconds=20)
                now = clock[0]
            lease = board.lease(name, now=now)
            leases += lease is not None
            if lease is not None and leases % 3:
                try:
                    board.score(lease, report(), now=clock[0])
                except LeaseLost:
                    continue
                done.append(lease.submission)
        return done

    with ThreadPoolExecutor(4) as pool:
        done = [number for found in pool.map(work, "abcd") for number in found]
    assert sorted(done) == numbers
    assert len(board.entries()) == len(numbers)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 400)),
        st.tuples(st.sampled_from(["lease", "score", "fail", "beat", "reject"]), st.integers(0, 3)),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_at_every_moment_a_submission_has_one_holder_at_most(steps):
    """Whatever workers do, and when: leases that hold are of different submissions, and only their reports count."""
    with tempfile.TemporaryDirectory() as folder:
        board = Leaderboard(f"sqlite:///{Path(folder, 'board.db')}", max_attempts=2)
        board.create_competition(tasks=["images"], deadline=DEADLINE, daily_quota=9, now=NOW)
        ada, numbers = fill(board, 3)
        now, held, ended = NOW + MINUTE, {}, collections.Counter()
        acts = {
            "score": lambda lease: board.score(lease, report(), now=now),
            "reject": lambda lease: board.reject(lease, Rejected(Code.CRASHED, "it fell"), now=now),
            "fail": lambda lease: board.fail(lease, "no power", now=now),
            "beat": lambda lease: board.heartbeat(lease, now=now),
        }
        for action, argument in steps:
            if action == "wait":
                now += timedelta(seconds=argument)
            elif action == "lease":
                lease = board.lease(f"w{argument}", now=now)
                going_on = (one for one in held.values() if not ended[one.submission, one.fence])
                valid = {one.submission for one in going_on if one.expires > now}  # a failure has given its lease back
                assert lease is None or lease.submission not in valid
                if lease is not None:
                    held[f"w{argument}"] = lease
            elif (lease := held.get(f"w{argument}")) is not None:
                newest = max((one.fence for one in held.values() if one.submission == lease.submission), default=0)
                holds = lease.expires > now and lease.fence == newest and not ended[lease.submission, lease.fence]
                try:
                    renewed = acts[action](lease)
                except LeaseLost:
                    assert not holds
                    continue
                if action == "beat":
                    held[f"w{argument}"] = renewed
                else:
                    assert not ended[lease.submission, lease.fence]
                    ended[lease.submission, lease.fence] += 1
        states = [board.attempt(ada, number).state for number in numbers]
        assert all(state is not State.RECEIVED for state in states)
        assert len(board.entries()) == states.count(State.SCORED)
        board.close()
