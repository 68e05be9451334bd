"""A leaderboard keeps what it was told, on SQLite and on PostgreSQL."""

import hashlib
import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard, Refusal, Refused, State
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

boards = importlib.import_module("tests.20_benchmarking.boards")
DEADLINE, MINUTE, NOW, join, report, scored = (
    boards.DEADLINE,
    boards.MINUTE,
    boards.NOW,
    boards.join,
    boards.report,
    boards.scored,
)


def refused(code: Refusal):
    return pytest.raises(Refused, match=f"^{code}: ")


def kinds(board, submission):
    return [happening.kind for happening in board.history(submission)]


def test_a_submission_goes_from_receipt_to_score(board):
    ada = join(board, "Ada")
    receipt = board.submit(ada, b"weights", now=NOW)
    assert (receipt.new, receipt.state, receipt.quota_left) == (True, State.QUEUED, 4)
    assert receipt.content_hash == hashlib.sha256(b"weights").hexdigest()
    lease = board.lease("worker", now=NOW)
    assert lease.path.read_bytes() == b"weights"
    assert (lease.submission, lease.attempt) == (receipt.submission, 1)
    board.score(lease, report(), now=NOW + MINUTE)
    assert kinds(board, receipt.submission) == ["received", "queued", "leased", "scored"]
    assert board.report(receipt.submission) == report()
    (entry,) = board.entries()
    assert (entry.participant, entry.task, entry.received, entry.submission) == (
        "Ada", "images", NOW, receipt.submission
    )  # fmt: skip
    assert board.lease("worker", now=NOW + MINUTE) is None


def test_the_same_bytes_are_the_same_submission_and_cost_no_quota(make):
    board = make(daily_quota=1)
    ada, bob = join(board), join(board)
    first = board.submit(ada, b"same", now=NOW)
    again = board.submit(ada, b"same", now=DEADLINE + MINUTE)
    assert (again.submission, again.new, again.received) == (first.submission, False, NOW)
    assert board.submit(bob, b"same", now=NOW).submission != first.submission
    assert len(list(board.files.folder.glob("*/*"))) == 1


def test_the_quota_is_counted_by_the_day_in_utc(make):
    board = make(daily_quota=2)
    ada = join(board)
    midnight = datetime(2026, 3, 3, tzinfo=UTC)
    elsewhere = timezone(timedelta(hours=-8))
    for number in range(2):
        board.submit(ada, b"%d" % number, now=midnight - timedelta(seconds=1))
    with refused(Refusal.QUOTA_EXHAUSTED):
        board.submit(ada, b"one more", now=(midnight - timedelta(microseconds=1)).astimezone(elsewhere))
    assert board.quota_left(ada, now=midnight) == 2
    assert board.submit(ada, b"one more", now=midnight.astimezone(elsewhere)).new


def test_two_uploads_at_once_cannot_both_take_the_last_place(make):
    board = make(daily_quota=3)
    ada, together = join(board), threading.Barrier(8)

    def upload(number):
        together.wait()
        try:
            return board.submit(ada, b"file %d" % number, now=NOW).new
        except Refused as refusal:
            return refusal.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(upload, range(8)))
    assert sorted(map(str, outcomes)) == ["True"] * 3 + ["quota-exhausted"] * 5
    assert len(board.attempts(ada)) == 3


def test_the_same_file_sent_twice_at_once_is_one_submission(board):
    ada, together = join(board), threading.Barrier(6)

    def upload(_):
        together.wait()
        return board.submit(ada, b"file", now=NOW)

    with ThreadPoolExecutor(6) as pool:
        receipts = list(pool.map(upload, range(6)))
    assert len({receipt.submission for receipt in receipts}) == 1
    assert sum(receipt.new for receipt in receipts) == 1


def test_the_deadline_is_compared_with_the_time_of_receipt(board):
    ada = join(board)
    board.submit(ada, b"in time", now=DEADLINE)
    with refused(Refusal.DEADLINE_PASSED):
        board.submit(ada, b"too late", now=DEADLINE + timedelta(microseconds=1))
    lease = board.lease("w", now=DEADLINE + timedelta(days=1))
    board.score(lease, report(), now=DEADLINE + timedelta(days=1))
    assert len(board.entries()) == 1


def test_the_rules_can_change_and_the_history_says_so(board):
    ada = join(board)
    board.change_rules(now=NOW, deadline=DEADLINE + MINUTE, daily_quota=1)
    board.submit(ada, b"in time now", now=DEADLINE + MINUTE)
    with refused(Refusal.QUOTA_EXHAUSTED):
        board.submit(ada, b"one more", now=DEADLINE + MINUTE)
    with board.database.reading() as session:
        of_this = "SELECT kind FROM events WHERE competition_id = :id AND submission_id IS NULL ORDER BY id"
        assert session.execute(text(of_this), {"id": board.competition.id}).scalars().all() == [
            "opened", "joined", "rules-changed"
        ]  # fmt: skip


def test_a_rejection_keeps_its_code_and_the_quota_stays_charged(make):
    board = make(daily_quota=1)
    ada = join(board)
    receipt = board.submit(ada, b"weights", now=NOW)
    board.reject(board.lease("w", now=NOW), Rejected(Code.TIMEOUT, "it took 61 s"), now=NOW + MINUTE)
    attempt = board.attempt(ada, receipt.submission)
    assert (attempt.state, attempt.code, attempt.message) == (State.REJECTED, "timeout", "it took 61 s")
    assert board.submit(ada, b"weights", now=NOW).state == State.REJECTED
    assert board.quota_left(ada, now=NOW) == 0


def test_a_failure_of_the_infrastructure_gives_the_quota_back(make):
    board = make(daily_quota=1, max_attempts=2)
    ada = join(board)
    receipt = board.submit(ada, b"weights", now=NOW)
    board.fail(board.lease("w", now=NOW), "the disk is full", now=NOW)
    assert board.attempt(ada, receipt.submission).state == State.QUEUED
    assert board.quota_left(ada, now=NOW) == 0
    board.fail(board.lease("w", now=NOW), "the disk is full", now=NOW)
    assert board.attempt(ada, receipt.submission).state == State.INFRASTRUCTURE_FAILURE
    assert board.quota_left(ada, now=NOW) == 1
    assert board.lease("w", now=NOW) is None


def test_after_such_a_failure_the_same_file_is_queued_again_even_past_the_deadline(make):
    board = make(daily_quota=1, max_attempts=1)
    ada, late = join(board), DEADLINE + timedelta(days=1)
    first = board.submit(ada, b"weights", now=NOW)
    board.fail(board.lease("w", now=NOW), "no power", now=NOW)
    again = board.submit(ada, b"weights", now=late)
    assert (again.submission, again.new, again.received, again.quota_left) == (first.submission, True, NOW, 0)
    board.score(board.lease("w", now=late), report(), now=late)
    assert kinds(board, first.submission)[-3:] == ["queued", "leased", "scored"]


def test_tokens_are_kept_as_hashes_alone(board):
    account = board.add_participant("Ada", now=NOW)
    with board.database.reading() as session:
        tables = ("participants", "events")
        stored = [str(row) for table in tables for row in session.execute(text(f"SELECT * FROM {table}"))]
    assert any("Ada" in row for row in stored)
    assert not any(account.token in row for row in stored)
    assert board.authenticate(account.token).pseudonym == "Ada"


@pytest.mark.parametrize("token", ["", "x" * 43, "ä" * 43, "x" * 10_000, "' OR 1=1 --"])
def test_other_tokens_are_refused_in_the_same_words(board, token):
    board.add_participant(now=NOW)
    with pytest.raises(Refused, match="unknown-token: this is no participant's token: copy all 43 characters of it"):
        board.authenticate(token)


def test_a_token_is_worth_nothing_in_another_competition(make):
    token = make().add_participant("Ada", now=NOW).token
    with refused(Refusal.UNKNOWN_TOKEN):
        make().authenticate(token)


def test_a_replaced_token_is_worth_nothing(board):
    old = board.add_participant("Ada", now=NOW).token
    new = board.replace_token("Ada", now=NOW).token
    with refused(Refusal.UNKNOWN_TOKEN):
        board.authenticate(old)
    assert board.authenticate(new).pseudonym == "Ada"


@pytest.mark.parametrize("name", ["", " Ada", "=1+1", "a" * 41, "Ada\n", "A\u202eda", "<b>", "../x"])
def test_pseudonyms_that_could_mislead_are_refused(board, name):
    with refused(Refusal.BAD_PSEUDONYM):
        board.add_participant(name, now=NOW)


def test_no_two_have_one_pseudonym(board):
    board.add_participant("Ada", now=NOW)
    with refused(Refusal.TAKEN):
        board.add_participant("Ada", now=NOW)
    drawn = {board.add_participant(now=NOW).pseudonym for _ in range(20)}
    assert len(drawn) == 20


def test_one_cannot_look_at_anothers_submission(board):
    ada, bob = join(board), join(board)
    number = board.submit(ada, b"weights", now=NOW).submission
    for unknown in (number, number + 1000):
        with pytest.raises(Refused, match=f"not-found: you have no submission {unknown}"):
            board.attempt(bob, unknown)


@pytest.mark.parametrize("table", ["events", "evaluations"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at = at", "DELETE FROM {}"])
def test_the_database_refuses_to_change_history(board, table, change):
    scored(board, join(board), b"weights")
    with pytest.raises(DBAPIError, match=f"{table} are only added to"), board.database.writing() as session:
        session.execute(text(change.format(table)))
    assert len(board.entries()) == 1


def test_a_file_too_large_is_refused_and_leaves_nothing(make):
    board = make(max_bytes=10)
    ada = join(board)
    with refused(Refusal.TOO_LARGE):
        board.submit(ada, b"12345678901", now=NOW)
    with refused(Refusal.EMPTY):
        board.submit(ada, b"", now=NOW)
    assert list(board.files.folder.iterdir()) == []
    assert board.submit(ada, b"1234567890", now=NOW).new


def test_a_refused_file_is_not_kept(make):
    board = make(daily_quota=1)
    ada = join(board)
    board.submit(ada, b"first", now=NOW)
    with refused(Refusal.QUOTA_EXHAUSTED):
        board.submit(ada, b"second", now=NOW)
    assert [path.read_bytes() for path in board.files.folder.rglob("*.*") if path.is_file()] == [b"first"]


def test_another_process_sees_what_one_has_written(board, url, tmp_path):
    scored(board, join(board), b"weights")
    other = Leaderboard(url, files=tmp_path / "files", competition=board.name)
    assert other.standings() == board.standings()
    other.close()


def test_the_queue_is_counted(board):
    ada = join(board)
    for number in range(3):
        board.submit(ada, b"%d" % number, now=NOW + number * MINUTE)
    board.lease("w", now=NOW + 3 * MINUTE)
    queue = board.queue()
    assert (queue.waiting, queue.running, queue.oldest) == (2, 1, NOW + MINUTE)


def test_a_report_that_is_incomplete_is_named_and_changes_nothing(board):
    board.submit(join(board), b"weights", now=NOW)
    lease = board.lease("w", now=NOW)
    for change, message in [
        ({"speedup": [1.0, 2.0]}, r"speedup is \[low, median, high\], not"),
        ({"speedup": [3.0, 2.0, 4.0]}, "in order"),
        ({"quality": float("nan")}, "quality is a finite number"),
        ({"passed": 1}, "passed is true or false"),
        ({"flops_ratio": 0}, "flops_ratio is above zero"),
        ({"task": "sound"}, "sound is no task of this competition"),
    ]:
        with pytest.raises(ValueError, match=message):
            board.score(lease, report() | change, now=NOW)
    board.score(lease, report(), now=NOW)


@pytest.mark.parametrize(
    "call",
    [
        lambda board, now: board.lease("w", now=now),
        lambda board, now: board.add_participant("alan", now=now),
        lambda board, now: board.replace_token("ada", now=now),
        lambda board, now: board.change_rules(daily_quota=2, now=now),
        lambda board, now: board.change_rules(deadline=now, now=NOW),
    ],
)
def test_times_without_a_zone_are_refused(board, call):
    with pytest.raises(ValueError, match="has no time zone"):
        call(board, datetime(2026, 3, 2))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("mysql://x/y", "mysql is no database of leaderboards"),
        ("sqlite://", "in memory could not be shared"),
        ("postgresql://x/y", "use sqlite:///file.db or postgresql\\+psycopg"),
        ("a b c", "cannot be read"),
    ],
)
def test_an_address_of_another_kind_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Leaderboard(bad)


def test_a_competition_that_was_not_created_is_named(url, tmp_path):
    empty = Leaderboard(url, files=tmp_path, competition="not yet")
    with pytest.raises(Refused, match="there is no competition 'not yet' here: create it first"):
        _ = empty.competition
    empty.close()
