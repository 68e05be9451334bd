"""The queue: a worker leases a submission, shows that it is alive, and reports what it found, once.

A lease that expires is the next worker's. Each carries a number of its own, the fence; a report is taken only with the
fence of the lease that holds, before it expires. So a worker that was held up, and wakes when another has its
submission, changes nothing (Gray & Cheriton, "Leases", SOSP 1989; the fence is Kleppmann's, "Designing Data-Intensive
Applications", 2017, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from tinytorch.benchmarks.tinymlperf.leaderboard.board import Board
from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import LeaseLost
from tinytorch.benchmarks.tinymlperf.leaderboard.report import Report
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Evaluation, Event, State, Submission, in_utc
from tinytorch.benchmarks.tinymlperf.rejection import Rejected

_MESSAGE = 1000  # characters of a rejection that are kept


@dataclass(frozen=True)
class Lease:
    """The right to evaluate one submission for some time.

    Attributes
    ----------
    submission, fence
        The number of the submission, and that of this lease of it.
    worker
        Who has it.
    attempt
        The how manieth it is, from 1.
    expires
        When it ends, unless `heartbeat` renews it.
    path
        The submitted file.
    content_hash
        SHA-256 of that file.
    """

    submission: int
    fence: int
    worker: str
    attempt: int
    expires: datetime
    path: Path
    content_hash: str


class Leases(Board):
    """What workers ask of a leaderboard."""

    def lease(self, worker: str, *, now: datetime) -> Lease | None:
        """Give a worker the submission that came first of those that wait, or None.

        One whose lease has expired waits, too; after `max_attempts` of them the infrastructure is held to have failed.
        """
        now = in_utc(now)
        with self.database.writing() as session:
            competition = self._require(session)
            expired = and_(Submission.state == State.LEASED, Submission.expires <= now)
            waiting = (
                select(Submission)
                .where(Submission.competition_id == competition.id)
                .where(or_(Submission.state == State.QUEUED, expired))
                .order_by(Submission.received, Submission.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            while (found := session.scalar(waiting)) is not None:
                if found.state == State.LEASED:
                    reason = f"the lease of {found.worker} expired"
                    _tell(session, found, "lease-expired", now, worker=found.worker, attempt=found.attempts)
                    if found.attempts >= self.max_attempts:
                        _give_up(session, found, reason, now)
                        continue
                found.state, found.worker = State.LEASED, worker
                found.attempts, found.fence = found.attempts + 1, found.fence + 1
                found.heartbeat, found.expires = now, now + self.lease_time
                _tell(session, found, State.LEASED, now, worker=worker, attempt=found.attempts)
                return self._lease(found)
        return None

    def heartbeat(self, lease: Lease, *, now: datetime) -> Lease:
        """Renew a lease; LeaseLost if it is over."""
        with self.database.writing() as session:
            submission = _held(session, lease, now)
            submission.heartbeat, submission.expires = in_utc(now), in_utc(now) + self.lease_time
            return self._lease(submission)

    def score(self, lease: Lease, report: Mapping[str, Any], *, now: datetime) -> None:
        """Store what the evaluator found; LeaseLost if the lease is over, a ValueError if the report is incomplete."""
        result = Report.from_json(report)
        with self.database.writing() as session:
            if result.task not in (tasks := self._require(session).tasks):
                raise ValueError(f"{result.task} is no task of this competition: it has {', '.join(tasks)}")
            submission = _held(session, lease, now)
            submission.state = State.SCORED
            session.add(_evaluation(submission, result, report, now))
            _tell(session, submission, State.SCORED, now, task=result.task, score=result.score.value)

    def reject(self, lease: Lease, why: Rejected, *, now: datetime) -> None:
        """Say that the submission is no good, and why; LeaseLost if the lease is over."""
        with self.database.writing() as session:
            submission = _held(session, lease, now)
            submission.state, submission.code = State.REJECTED, why.code.value
            submission.message = why.message[:_MESSAGE]
            _tell(session, submission, State.REJECTED, now, code=why.code.value, message=why.message[:_MESSAGE])

    def fail(self, lease: Lease, reason: str, *, now: datetime) -> None:
        """Say that the evaluation failed and the submission is not to blame; LeaseLost if the lease is over.

        It waits again, until it has failed `max_attempts` times; then the quota is given back.
        """
        with self.database.writing() as session:
            submission = _held(session, lease, now)
            if submission.attempts >= self.max_attempts:
                _give_up(session, submission, reason, now)
            else:
                submission.state = State.QUEUED
                _tell(session, submission, State.QUEUED, now, reason=reason[:_MESSAGE])

    def _lease(self, submission: Submission) -> Lease:
        assert submission.worker is not None
        assert submission.expires is not None
        path = self.files.path(submission.content_hash)
        return Lease(
            submission.id,
            submission.fence,
            submission.worker,
            submission.attempts,
            submission.expires,
            path,
            submission.content_hash,
        )


def _held(session: Session, lease: Lease, now: datetime) -> Submission:
    """Return the submission of a lease that holds, its row locked."""
    of_lease = (Submission.id == lease.submission, Submission.fence == lease.fence)
    holds = (Submission.state == State.LEASED, Submission.expires > in_utc(now))
    submission = session.scalar(select(Submission).where(*of_lease, *holds).with_for_update())
    if submission is None:
        raise LeaseLost(
            f"{lease.worker}'s lease {lease.fence} of submission {lease.submission} is over: nothing of it is taken"
        )
    return submission


def _give_up(session: Session, submission: Submission, reason: str, now: datetime) -> None:
    submission.state, submission.charged_on = State.INFRASTRUCTURE_FAILURE, None
    _tell(session, submission, State.INFRASTRUCTURE_FAILURE, now, reason=reason[:_MESSAGE], quota="given back")
    session.flush()  # the next look at the queue has to see it


def _tell(session: Session, submission: Submission, kind: str, now: datetime, **details: object) -> None:
    session.add(
        Event(
            competition_id=submission.competition_id,
            submission_id=submission.id,
            at=in_utc(now),
            kind=kind,
            details=details,
        )
    )


def _evaluation(submission: Submission, result: Report, report: Mapping[str, Any], now: datetime) -> Evaluation:
    ratios = result.ratios
    return Evaluation(
        competition_id=submission.competition_id,
        submission_id=submission.id,
        at=in_utc(now),
        task=result.task,
        passed=result.passed,
        quality=result.quality,
        score=result.score.value,
        score_low=result.score.low,
        score_high=result.score.high,
        deterministic_score=result.deterministic,
        speedup=ratios.speedup.value,
        speedup_low=ratios.speedup.low,
        speedup_high=ratios.speedup.high,
        flops_ratio=ratios.flops,
        bytes_ratio=ratios.bytes,
        activation_ratio=ratios.activation,
        result=dict(report),
    )
