"""What a leaderboard remembers: competitions, participants, submissions, events, evaluations.

Events and evaluations are only ever added: the database itself refuses to change or delete one. A submission's state is
kept in its own row as well, so that the queue can be searched, and changes in the transaction that adds the event.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    event,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column

# SQLite numbers rows by itself only where the key is called INTEGER, which is 64 bits wide there.
_Key = BigInteger().with_variant(Integer, "sqlite")


class State(StrEnum):
    """Where a submission is in its life."""

    RECEIVED = "received"
    QUEUED = "queued"
    LEASED = "leased"
    SCORED = "scored"
    REJECTED = "rejected"
    INFRASTRUCTURE_FAILURE = "infrastructure-failure"


class Moment(TypeDecorator[datetime]):
    """A point in time: aware in Python, in UTC in the database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC; a ValueError if it does not say in which zone it is."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone: use datetime.now(UTC), or give it one")
    return moment.astimezone(UTC)


class Base(DeclarativeBase):
    """The tables of a leaderboard."""


class Competition(Base):
    """What holds for all: until when submissions are received, and how many a participant may send in a day (UTC)."""

    __tablename__ = "competitions"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    tasks: Mapped[list[str]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(Moment)
    deadline: Mapped[datetime] = mapped_column(Moment)
    daily_quota: Mapped[int]
    division: Mapped[str] = mapped_column(String(10))
    secret_seed: Mapped[int] = mapped_column(BigInteger)


class Participant(Base):
    """Somebody under a pseudonym. Of the token that proves it, only the hash is kept."""

    __tablename__ = "participants"
    __table_args__ = (UniqueConstraint("competition_id", "pseudonym"),)

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    competition_id: Mapped[int] = mapped_column(ForeignKey(Competition.id))
    pseudonym: Mapped[str] = mapped_column(String(40))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime] = mapped_column(Moment)


class Submission(Base):
    """One file of one participant, and where it is in its life.

    `fence` counts its leases: a worker shows the number that it was given, so that one that comes late, when another
    has the submission, is recognised. `charged_on` is the day in UTC on whose quota it counts, none if that was given
    back.
    """

    __tablename__ = "submissions"
    __table_args__ = (
        UniqueConstraint("participant_id", "content_hash"),
        Index("queue", "competition_id", "state", "received", "id"),
    )

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    competition_id: Mapped[int] = mapped_column(ForeignKey(Competition.id))
    participant_id: Mapped[int] = mapped_column(ForeignKey(Participant.id))
    content_hash: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[datetime] = mapped_column(Moment)
    charged_on: Mapped[date | None] = mapped_column(Date)
    state: Mapped[str] = mapped_column(String(24))
    code: Mapped[str | None] = mapped_column(String(40))
    message: Mapped[str | None] = mapped_column(String(1000))
    worker: Mapped[str | None] = mapped_column(String(200))
    attempts: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    heartbeat: Mapped[datetime | None] = mapped_column(Moment)
    expires: Mapped[datetime | None] = mapped_column(Moment)


class Event(Base):
    """Something that happened, to a submission or to the whole competition."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    competition_id: Mapped[int] = mapped_column(ForeignKey(Competition.id))
    submission_id: Mapped[int | None] = mapped_column(ForeignKey(Submission.id), index=True)
    at: Mapped[datetime] = mapped_column(Moment)
    kind: Mapped[str] = mapped_column(String(40))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)


class Evaluation(Base):
    """What the evaluator found, whole as JSON and, for ranking, in columns. A submission has one at most."""

    __tablename__ = "evaluations"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    competition_id: Mapped[int] = mapped_column(ForeignKey(Competition.id), index=True)
    submission_id: Mapped[int] = mapped_column(ForeignKey(Submission.id), unique=True)
    at: Mapped[datetime] = mapped_column(Moment)
    task: Mapped[str] = mapped_column(String(80))
    passed: Mapped[bool]
    quality: Mapped[float]
    score: Mapped[float]
    score_low: Mapped[float]
    score_high: Mapped[float]
    deterministic_score: Mapped[float]
    speedup: Mapped[float]
    speedup_low: Mapped[float]
    speedup_high: Mapped[float]
    flops_ratio: Mapped[float]
    bytes_ratio: Mapped[float]
    activation_ratio: Mapped[float]
    result: Mapped[dict[str, Any]] = deferred(mapped_column(JSON))


def _append_only(table: Table) -> None:
    name, message = table.name, f"{table.name} are only added to"
    ddl: Callable[[str], DDL] = DDL  # it has no types of its own
    for action in ("UPDATE", "DELETE"):
        trigger = ddl(
            f"CREATE TRIGGER {name}_no_{action.lower()} BEFORE {action} ON {name} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
        event.listen(table, "after_create", trigger.execute_if(dialect="sqlite"))
    refuse = ddl(
        f"CREATE FUNCTION {name}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{message}'; END $$"
    )
    trigger = ddl(
        f"CREATE TRIGGER {name}_no_change BEFORE UPDATE OR DELETE ON {name} "
        f"FOR EACH ROW EXECUTE FUNCTION {name}_refuse()"
    )
    for statement in (refuse, trigger):
        event.listen(table, "after_create", statement.execute_if(dialect="postgresql"))


for _table in (Event.__table__, Evaluation.__table__):
    assert isinstance(_table, Table)
    _append_only(_table)
