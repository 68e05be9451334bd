"""The queue is worked off: every submission ends scored, rejected or given back, and counts once."""

import os
import signal
import threading
import time
from datetime import timedelta
from importlib import import_module

import pytest

from tinytorch import nn, zoo
from tinytorch.benchmarks.tinymlperf import evaluator
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard, State

boards = import_module("tests.20_benchmarking.boards")
IMAGES = "image-classification"


@pytest.fixture
def board(tmp_path):
    made = Leaderboard(f"sqlite:///{tmp_path / 'board.db'}")
    now = evaluator.now()
    rules = {"tasks": [IMAGES], "deadline": now + timedelta(days=1), "daily_quota": 20, "division": "open"}
    made.create_competition(**rules, now=now, seed=5)
    yield made
    made.close()


def entries(count: int) -> list[bytes]:
    """Different files for one task: linear classifiers, which are quick."""
    files = []
    for seed in range(count):
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        model[1].weight.data[...] *= seed + 1
        files.append(export(model.eval(), IMAGES, division="open").to_bytes())
    return files


def states(board, participant) -> list[State]:
    return [attempt.state for attempt in board.attempts(participant)]


def test_what_was_found_is_told(board, monkeypatch):
    ada = boards.join(board, "ada")
    for raw in (b"good", b"bad", b"busy"):
        board.submit(ada, raw, now=evaluator.now())
    outcomes = {
        b"good": {"report": boards.report(IMAGES)},
        b"bad": {"code": "not-finite", "message": "a number is NaN"},
        b"busy": {"failure": "the machine was busy"},
    }
    seen = []

    def measured(job):
        seen.append(job)
        return outcomes[job.raw]

    monkeypatch.setattr(evaluator, "measure", measured)
    assert evaluator.drain(board) == 5  # what failed is tried three times
    assert states(board, ada) == [State.INFRASTRUCTURE_FAILURE, State.REJECTED, State.SCORED]
    assert board.attempts(ada)[1].code == "not-finite"
    assert board.quota_left(ada, now=evaluator.now()) == 18  # that of the failure is given back
    assert len({job.seed for job in seen}) == 5  # every attempt has samples of its own
    assert evaluator.drain(board) == 0


def test_seeds_cannot_be_told_without_the_secret(board, tmp_path):
    other = Leaderboard(f"sqlite:///{tmp_path / 'other.db'}")
    now = evaluator.now()
    other.create_competition(tasks=[IMAGES], deadline=now + timedelta(days=1), daily_quota=20, now=now, seed=6)
    seeds = []
    for each in (board, other):
        each.submit(boards.join(each, "ada"), b"file", now=now)
        lease = each.lease("w", now=now)
        seeds.append(evaluator.job_of(each, lease, evaluator.How()).seed)
    assert seeds[0] != seeds[1]
    other.close()


def test_a_lease_is_renewed_while_something_is_measured(tmp_path, monkeypatch):
    board = Leaderboard(f"sqlite:///{tmp_path / 'board.db'}", lease=timedelta(seconds=0.6))
    now = evaluator.now()
    board.create_competition(tasks=[IMAGES], deadline=now + timedelta(days=1), daily_quota=20, now=now)
    ada = boards.join(board, "ada")
    board.submit(ada, b"slow", now=now)
    stolen = []

    def slow(job):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            stolen.append(board.lease("thief", now=evaluator.now()))
            time.sleep(0.1)
        return {"report": boards.report(IMAGES)}

    monkeypatch.setattr(evaluator, "measure", slow)
    assert evaluator.drain(board) == 1
    assert not any(stolen)
    assert states(board, ada) == [State.SCORED]
    board.close()


def test_a_result_that_comes_after_its_lease_changes_nothing(board):
    ada = boards.join(board, "ada")
    board.submit(ada, b"file", now=evaluator.now())
    late = board.lease("late", now=evaluator.now())
    other = board.lease("other", now=evaluator.now() + timedelta(hours=1))
    assert other is not None
    evaluator.tell(board, late, {"code": "crashed", "message": "too late"})
    assert states(board, ada) == [State.LEASED]


def test_a_submission_of_another_division_is_rejected(board):
    ada = boards.join(board, "ada")
    board.submit(ada, export(zoo.load("reference_cnn"), IMAGES).to_bytes(), now=evaluator.now())
    assert evaluator.drain(board) == 1
    assert board.attempts(ada)[0].code == "wrong-division"


@pytest.mark.parametrize(("raw", "code"), [(b"no file", "truncated"), (b"\x00" * 100, "bad-header")])
def test_a_file_that_is_none_is_rejected_with_its_code(raw, code):
    assert evaluator.measure(evaluator.Job(raw, 1, 0.1))["code"] == code


def test_a_fault_of_ours_is_not_the_submission_s(monkeypatch):
    class Broken:
        def __init__(self, *args, **options):
            raise ZeroDivisionError("ours")

    monkeypatch.setattr(evaluator, "BenchmarkSuite", Broken)
    assert evaluator.measure(evaluator.Job(b"", 1, 0.1)) == {"failure": "ZeroDivisionError: ours"}


def test_a_real_submission_is_scored(board):
    ada = boards.join(board, "ada")
    board.submit(ada, export(zoo.load("reference_cnn"), IMAGES, division="open").to_bytes(), now=evaluator.now())
    assert evaluator.drain(board, evaluator.How(0.2, 1, tolerance=1000)) == 1
    (ranked,) = board.standings()[IMAGES]
    assert ranked.entry.deterministic == 1000.0
    assert ranked.entry.passed


# A cluster


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("distributed")
    from distributed import LocalCluster

    options = {"dashboard_address": ":0", "worker_dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **options) as made:
        yield made


def test_a_cluster_scores_each_submission_once(board, cluster):
    ada = boards.join(board, "ada")
    for raw in entries(3):
        board.submit(ada, raw, now=evaluator.now())
    assert evaluator.drain_on_cluster(board, cluster.scheduler_address, evaluator.How(0.1, 1, tolerance=1000)) == 3
    assert states(board, ada) == [State.SCORED] * 3
    assert len(board.participant_entries("ada")) == 3


def test_a_worker_that_is_killed_loses_nothing_and_scores_nothing_twice(board, cluster):
    ada = boards.join(board, "ada")
    for raw in entries(3):
        board.submit(ada, raw, now=evaluator.now())
    victim = next(iter(cluster.workers.values())).pid

    def kill_when_it_works() -> None:
        while board.queue().running == 0:
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_works)
    killer.start()
    evaluator.drain_on_cluster(board, cluster.scheduler_address, evaluator.How(0.3, 1, tolerance=1000))
    killer.join()
    assert states(board, ada) == [State.SCORED] * 3
    assert len(board.participant_entries("ada")) == 3
    told = [event.kind for attempt in board.attempts(ada) for event in board.history(attempt.submission)]
    assert told.count("scored") == 3


@pytest.mark.parametrize(("threads", "message"), [([1, 2], "nthreads 1"), ([], "no workers")])
def test_workers_with_several_threads_and_none_are_refused(threads, message):
    class Client:
        def scheduler_info(self, n_workers):
            return {"workers": {str(i): {"nthreads": n} for i, n in enumerate(threads)}}

    with pytest.raises(RuntimeError, match=message):
        evaluator._slots(Client())
