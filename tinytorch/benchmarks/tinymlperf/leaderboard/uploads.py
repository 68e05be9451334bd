"""Submissions come in: each content once, before the deadline, as many in a day as the quota allows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tinytorch.benchmarks.tinymlperf.leaderboard.board import Board
from tinytorch.benchmarks.tinymlperf.leaderboard.files import Incoming
from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import Refusal, Refused
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import (
    Competition,
    Event,
    Participant,
    State,
    Submission,
    in_utc,
)

_PIECE = 2**20


@dataclass(frozen=True)
class Receipt:
    """What a participant is told of a file.

    Attributes
    ----------
    submission
        Its number.
    content_hash
        SHA-256 of the file.
    received
        When it came for the first time.
    state
        Where it is in its life.
    new
        Whether it was queued now. If not, the same file had come before, and costs no quota.
    quota_left
        How many more new submissions this participant may send today (UTC).
    """

    submission: int
    content_hash: str
    received: datetime
    state: State
    new: bool
    quota_left: int


class Uploads(Board):
    """How files become submissions."""

    def submit(self, participant: Participant, file: Incoming | Path | bytes, *, now: datetime) -> Receipt:
        """Keep a file and queue it.

        The same bytes from the same participant are the same submission, whatever the day. Only after a failure of the
        infrastructure are they queued again: they cost quota again, for the earlier one was given back.

        Parameters
        ----------
        participant
            Who `authenticate` said it is.
        file
            What `files.receive()` gave, all of it written; or a file, or its bytes.
        now
            When the file began to arrive: this is compared with the deadline, and its day in UTC is charged.

        Raises
        ------
        Refused
            If the deadline has passed, the quota of the day is used up, or the file is empty or too large.
        """
        if isinstance(file, Incoming):
            return self._submit(participant, file, now)
        with self.files.receive() as incoming:
            if isinstance(file, bytes):
                incoming.write(file)
            else:
                with file.open("rb") as source:
                    while piece := source.read(_PIECE):
                        incoming.write(piece)
            return self._submit(participant, incoming, now)

    def quota_left(self, participant: Participant, *, now: datetime) -> int:
        """Return how many new submissions a participant may send in the rest of the day (UTC)."""
        with self.database.reading() as session:
            return _quota_left(session, self._require(session), participant.id, now)

    def _submit(self, participant: Participant, incoming: Incoming, now: datetime) -> Receipt:
        if incoming.size == 0:
            raise Refused(Refusal.EMPTY, "the file is empty: choose the one that the export wrote")
        content_hash = incoming.finish()
        with self.database.writing() as session:
            competition = self._require(session)
            # Two uploads of one participant wait for each other here, so that they cannot both take the last place.
            session.execute(
                select(Participant.id).where(Participant.id == participant.id).with_for_update(key_share=True)
            )
            left = _quota_left(session, competition, participant.id, now)
            same = (Submission.participant_id == participant.id, Submission.content_hash == content_hash)
            found = session.scalar(select(Submission).where(*same).with_for_update())
            new = found is None or found.state == State.INFRASTRUCTURE_FAILURE
            if found is None and in_utc(now) > competition.deadline:
                raise Refused(Refusal.DEADLINE_PASSED, f"the deadline was {competition.deadline:%Y-%m-%d %H:%M:%S} UTC")
            if new and left <= 0:
                raise Refused(
                    Refusal.QUOTA_EXHAUSTED,
                    f"{competition.daily_quota} new submissions a day is the most; the next day begins at 0:00 UTC",
                )
            submission = found or self._received(session, participant, incoming, content_hash, now)
            if new:
                submission.state, submission.attempts, submission.charged_on = State.QUEUED, 0, in_utc(now).date()
                incoming.keep()
                session.add(_event(submission, State.QUEUED, now))
        return Receipt(submission.id, content_hash, submission.received, State(submission.state), new, left - new)

    def _received(
        self, session: Session, participant: Participant, incoming: Incoming, content_hash: str, now: datetime
    ) -> Submission:
        submission = Submission(
            competition_id=participant.competition_id,
            participant_id=participant.id,
            content_hash=content_hash,
            size=incoming.size,
            received=in_utc(now),
            state=State.RECEIVED,
            attempts=0,
            fence=0,
        )
        session.add(submission)
        session.flush()
        session.add(_event(submission, State.RECEIVED, now, content_hash=content_hash, size=incoming.size))
        return submission


def _event(submission: Submission, kind: State, now: datetime, **details: object) -> Event:
    return Event(
        competition_id=submission.competition_id, submission_id=submission.id, at=now, kind=kind, details=details
    )


def _quota_left(session: Session, competition: Competition, participant: int, now: datetime) -> int:
    charged = (Submission.participant_id == participant, Submission.charged_on == in_utc(now).date())
    used = session.scalar(select(func.count()).select_from(Submission).where(*charged))
    return max(0, competition.daily_quota - (used or 0))
