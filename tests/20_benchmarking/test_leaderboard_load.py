"""Hundreds of participants with five submissions each: nothing is lost, and both databases rank them the same."""

import hashlib
import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert, select, text

from tinytorch.benchmarks.tinymlperf.leaderboard import OVERALL, Leaderboard, State
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Base

boards = importlib.import_module("tests.20_benchmarking.boards")
DEADLINE, MINUTE, NOW, TASKS, join, report = (
    boards.DEADLINE,
    boards.MINUTE,
    boards.NOW,
    boards.TASKS,
    boards.join,
    boards.report,
)
SECOND = MINUTE / 60
PARTICIPANTS, EACH = int(os.environ.get("TINYMLPERF_LOAD", 200)), 5  # 1000 takes a minute or two


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course at its end, every submission received, leased and scored one after the other."""
    folder = tmp_path_factory.mktemp("course")
    board = Leaderboard(f"sqlite:///{folder / 'board.db'}", competition="course")
    board.create_competition(tasks=TASKS, deadline=DEADLINE, daily_quota=EACH, now=NOW)
    speedups = np.exp(np.random.default_rng(0).normal(1.0, 0.8, PARTICIPANTS * EACH))
    expected = {}
    for number, speedup in enumerate(speedups):
        if number % EACH == 0:
            participant = join(board, f"student {number // EACH:04}")
        receipt = board.submit(participant, b"file %d" % number, now=NOW + number * SECOND)
        expected[receipt.content_hash] = (TASKS[number % 2], float(speedup))
    while (lease := board.lease("w", now=NOW + 100 * MINUTE)) is not None:
        task, speedup = expected.pop(lease.content_hash)  # a KeyError if something is evaluated twice
        assert hashlib.sha256(lease.path.read_bytes()).hexdigest() == lease.content_hash
        board.score(lease, report(task, speedup, spread=0.02), now=NOW + 100 * MINUTE)
    assert expected == {}
    yield board
    board.close()


def copy(board: Leaderboard, url: str, files: Path) -> Leaderboard:
    """Write all rows of a leaderboard into another database, their numbers the same."""
    other = Leaderboard(url, files=files, competition=board.name)
    with board.database.reading() as source, other.database.writing() as target:
        for table in Base.metadata.sorted_tables:
            assert target.scalar(text(f"SELECT count(*) FROM {table.name}")) == 0
            target.execute(insert(table), [dict(row) for row in source.execute(select(table)).mappings()])
    return other


def test_a_thousand_participants_lose_nothing(course):
    assert course.queue().counts == {State.SCORED: PARTICIPANTS * EACH}
    assert len(course.entries()) == PARTICIPANTS * EACH
    assert {task: len(ranked) for task, ranked in course.standings().items()} == {
        OVERALL: PARTICIPANTS,
        **dict.fromkeys(TASKS, PARTICIPANTS),
    }


def test_both_databases_rank_a_thousand_participants_the_same(course, own_postgres_url, tmp_path):
    other = copy(course, own_postgres_url, tmp_path / "files")
    assert other.standings() == course.standings()
    other.close()


def test_the_best_of_all_ranks_first_and_ranks_follow_the_scores(course):
    for ranked in course.standings().values():
        scores = [one.entry.score.value for one in ranked]
        assert scores == sorted(scores, reverse=True)
        assert ranked[0].rank == 1
        assert any(one.tied for one in ranked)
        assert ranked[-1].rank > PARTICIPANTS / 2
