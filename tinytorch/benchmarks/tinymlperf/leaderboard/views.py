"""What is shown of a leaderboard: standings, the history of a participant, the queue."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, true
from sqlalchemy.orm import Session

from tinytorch.benchmarks.tinymlperf.leaderboard.board import Board
from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import OVERALL, Entry, Ranked, overall, rank
from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import Refusal, Refused
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Evaluation, Event, Participant, State, Submission
from tinytorch.benchmarks.tinymlperf.scoring import Ratios
from tinytorch.profiling.timing.statistics import Estimate


@dataclass(frozen=True)
class Attempt:
    """A submission as its owner sees it.

    Attributes
    ----------
    submission
        Its number.
    content_hash, size
        SHA-256 of the file, in hexadecimal digits, and its bytes.
    received, state
        When it came, and where it is.
    code, message
        Why it was rejected; None unless it was.
    entry
        What was found; None unless it has been scored.
    """

    submission: int
    content_hash: str
    size: int
    received: datetime
    state: State
    code: str | None
    message: str | None
    entry: Entry | None


@dataclass(frozen=True)
class Happening:
    """One line of a submission's history: when, what (such as "leased"), and what else is known of it."""

    at: datetime
    kind: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Queue:
    """How many submissions are in each state, and since when the oldest of those that wait does."""

    counts: Mapping[State, int]
    oldest: datetime | None

    @property
    def waiting(self) -> int:
        """How many wait for a worker."""
        return self.counts.get(State.QUEUED, 0)

    @property
    def running(self) -> int:
        """How many a worker has."""
        return self.counts.get(State.LEASED, 0)


@dataclass
class _Kept:
    """What is known of the evaluations so far, and the standings after them.

    Evaluations are only added, so their number says whether there are new ones. The largest number of a row would not:
    PostgreSQL gives numbers out before it commits, so that a smaller one may come later.

    Attributes
    ----------
    seen
        The submissions whose evaluations have been taken in.
    last
        The largest number of a row among them: new ones have a larger one, nearly always.
    best
        Of each participant and task, the best entry.
    overall
        Of each participant, all tasks together.
    """

    seen: set[int] = field(default_factory=set)
    last: int = 0
    best: dict[str, dict[str, Entry]] = field(default_factory=dict)
    overall: dict[str, Entry] = field(default_factory=dict)
    standings: dict[str, list[Ranked]] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, entries: Iterable[Entry], tasks: Sequence[str]) -> dict[str, list[Ranked]]:
        """Take entries in, and return what `ranking.standings` says of all so far.

        Of each participant and task the best entry stands for all. Only participants with a better one are added up,
        and only tasks with a better one are ranked anew: the list of another stays the same object.
        """
        changed, better = set(), set()
        for entry in entries:
            self.seen.add(entry.submission)
            own = self.best.setdefault(entry.participant, {})
            if entry.task not in own or entry.order < own[entry.task].order:
                own[entry.task] = entry
                changed.add(entry.participant)
                better.add(entry.task)
        self.overall |= {name: overall(self.best[name].values(), tasks)[0] for name in changed}
        ranked = dict(self.standings or {})
        if changed or not ranked:
            ranked[OVERALL] = rank(self.overall.values())
        for task in tasks:
            if task in better or task not in ranked:
                ranked[task] = rank(own[task] for own in self.best.values() if task in own)
        return ranked


_COLUMNS = (
    Participant.pseudonym,
    Submission.id.label("submission_id"),
    Submission.received,
    *(column for column in Evaluation.__table__.columns if column.name not in ("id", "submission_id", "result")),
)


class Views(Board):
    """What can be read. Nothing here depends on the time."""

    @cached_property  # no __init__, which would hide what `Leaderboard` takes; of two made at once one is forgotten
    def _kept(self) -> _Kept:
        return _Kept()

    def entries(self) -> list[Entry]:
        """Return all that was scored, in no order."""
        with self.database.reading() as session:
            return self._entries(session, self._require(session).id, true())

    def standings(self) -> dict[str, list[Ranked]]:
        """Return the ranking of all tasks together, then of each one; computed anew only after an evaluation."""
        kept = self._kept
        with kept.lock, self.database.reading() as session:
            competition = self._require(session)
            of_this = Evaluation.competition_id == competition.id
            count, last = session.execute(select(func.count(), func.max(Evaluation.id)).where(of_this)).one()
            if kept.standings is None or count != len(kept.seen):
                for which in (Evaluation.id > kept.last, true()):
                    found = self._entries(session, competition.id, which)
                    new = [entry for entry in found if entry.submission not in kept.seen]
                    if len(kept.seen) + len(new) == count:
                        break
                kept.standings, kept.last = kept.add(new, competition.tasks), last or 0
            return kept.standings

    def participant_entries(self, pseudonym: str) -> list[Entry]:
        """Return what of one participant was scored, in the order of receipt; Refused if there is nobody so called."""
        with self.database.reading() as session:
            competition = self._require(session)
            participant = self._participant(session, competition, pseudonym)
            found = self._entries(session, competition.id, Submission.participant_id == participant.id)
        return sorted(found, key=lambda entry: (entry.received, entry.submission))

    def attempts(self, participant: Participant) -> list[Attempt]:
        """Return all submissions of one participant, the last one first."""
        mine = Submission.participant_id == participant.id
        with self.database.reading() as session:
            scored = {entry.submission: entry for entry in self._entries(session, participant.competition_id, mine)}
            own = select(Submission).where(mine)
            rows = session.scalars(own.order_by(Submission.received.desc(), Submission.id.desc())).all()
        return [_attempt(row, scored.get(row.id)) for row in rows]

    def attempt(self, participant: Participant, submission: int) -> Attempt:
        """Return one submission; Refused, in the same words, if there is none of this number or it is another's."""
        for found in self.attempts(participant):
            if found.submission == submission:
                return found
        raise Refused(Refusal.NOT_FOUND, f"you have no submission {submission}")

    def history(self, submission: int) -> list[Happening]:
        """Return what happened to a submission, in order."""
        with self.database.reading() as session:
            rows = session.scalars(select(Event).where(Event.submission_id == submission).order_by(Event.id))
            return [Happening(row.at, row.kind, row.details) for row in rows]

    def report(self, submission: int) -> dict[str, Any]:
        """Return the evaluator's whole report; Refused if the submission has not been scored."""
        with self.database.reading() as session:
            of_this = (Evaluation.competition_id == self._require(session).id, Evaluation.submission_id == submission)
            found = session.scalar(select(Evaluation.result).where(*of_this))
        if found is None:
            raise Refused(Refusal.NOT_FOUND, f"submission {submission} has not been scored")
        return found

    def queue(self) -> Queue:
        """Return how many submissions are where."""
        with self.database.reading() as session:
            of_this = Submission.competition_id == self._require(session).id
            count = select(Submission.state, func.count()).where(of_this).group_by(Submission.state)
            counts = {State(state): number for state, number in session.execute(count)}
            waiting = (of_this, Submission.state == State.QUEUED)
            oldest = session.scalar(select(func.min(Submission.received)).where(*waiting))
        return Queue(counts, oldest)

    def _entries(self, session: Session, competition: int, which: ColumnElement[bool]) -> list[Entry]:
        query = (
            select(*_COLUMNS)
            .join(Submission, Submission.id == Evaluation.submission_id)
            .join(Participant, Participant.id == Submission.participant_id)
            .where(Evaluation.competition_id == competition, which)
        )
        return [_entry(row) for row in session.execute(query)]


def _entry(row: Row[Any]) -> Entry:
    speedup = Estimate(row.speedup, row.speedup_low, row.speedup_high)
    return Entry(
        participant=row.pseudonym,
        task=row.task,
        score=Estimate(row.score, row.score_low, row.score_high),
        deterministic=row.deterministic_score,
        received=row.received,
        submission=row.submission_id,
        passed=row.passed,
        quality=row.quality,
        ratios=Ratios(speedup, row.flops_ratio, row.bytes_ratio, row.activation_ratio, row.passed),
    )


def _attempt(row: Submission, entry: Entry | None) -> Attempt:
    return Attempt(row.id, row.content_hash, row.size, row.received, State(row.state), row.code, row.message, entry)
