"""Standings that are kept are those of everything that was scored, by scores that are computed here."""

import importlib

import numpy as np
from sqlalchemy import select

from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import standings
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Evaluation, Submission

boards = importlib.import_module("tests.20_benchmarking.boards")
NOW, join, report, scored = boards.NOW, boards.join, boards.report, boards.scored


def test_standings_are_of_the_last_evaluation(board):
    ada, bob = join(board, "Ada"), join(board, "Bob")
    scored(board, ada, b"slow", speedup=2.0)
    assert [r.entry.participant for r in board.standings()["images"]] == ["Ada"]
    assert board.standings() is board.standings()
    before = board.standings()
    scored(board, bob, b"fast", speedup=4.0)
    assert [(r.rank, r.entry.participant) for r in board.standings()["images"]] == [(1, "Bob"), (2, "Ada")]
    assert board.standings()["text"] is before["text"]  # nothing came for it: pages that show it are as they were
    assert board.standings()["text"] == []


def test_standings_kept_up_to_date_are_those_of_all_entries(make):
    board, rng = make(daily_quota=100), np.random.default_rng(0)
    members = [join(board) for _ in range(6)]
    for number in range(30):
        task, speedup = boards.TASKS[rng.integers(2)], float(rng.uniform(0.5, 8.0))
        passed = bool(rng.random() < 0.8)
        scored(board, members[rng.integers(6)], b"%d" % number, task=task, speedup=speedup, passed=passed)
        if number % 3 == 0:
            assert board.standings() == standings(board.entries(), boards.TASKS)


def test_an_evaluation_whose_number_is_smaller_than_one_that_came_before_is_ranked(board):
    """PostgreSQL gives numbers out before it commits."""
    for name, key in (("Ada", 10**6), ("Bob", 10**6 - 1)):
        submission = board.submit(join(board, name), name.encode(), now=NOW).submission
        board.lease("w", now=NOW)
        values = dict.fromkeys(("score", "score_low", "score_high", "speedup", "speedup_low", "speedup_high"), 1.0)
        values |= dict.fromkeys(("deterministic_score", "flops_ratio", "bytes_ratio", "activation_ratio"), 1.0)
        with board.database.writing() as session:
            number = session.scalar(select(Submission.competition_id).where(Submission.id == submission))
            of = {"id": key + 10 * number, "competition_id": number, "submission_id": submission, "at": NOW}
            session.add(Evaluation(**of, **values, task="images", passed=True, quality=1.0, result={}))
        assert board.standings()["images"][-1].entry.participant == name
    scored(board, join(board, "Cleo"), b"weights")
    assert [len(ranked) for ranked in board.standings().values()] == [3, 3, 0]


def test_a_score_that_a_report_claims_changes_nothing(board):
    claimed = {"score": [9e8, 9e9, 9e9], "deterministic_score": 9e9}
    board.submit(join(board, "Ada"), b"weights", now=NOW)
    board.score(board.lease("w", now=NOW), report(speedup=2.0) | claimed, now=NOW)
    scored(board, join(board, "Bob"), b"faster", speedup=3.0)
    honest = report(speedup=2.0)
    for ranked in board.standings().values():
        assert [one.entry.participant for one in ranked if one.entry.score.value > 9e5] == []
    assert [r.entry.participant for r in board.standings()["images"]] == ["Bob", "Ada"]
    (ada,) = board.participant_entries("Ada")
    assert [ada.score.low, ada.score.value, ada.score.high] == honest["score"]
    assert ada.deterministic == honest["deterministic_score"]
    assert board.history(ada.submission)[-1].details["score"] == honest["score"][1]
