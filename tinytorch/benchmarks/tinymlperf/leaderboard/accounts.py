"""Competitions and their participants: pseudonyms that are shown, tokens of which only hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from tinytorch.benchmarks.tinymlperf.graph import DIVISIONS
from tinytorch.benchmarks.tinymlperf.leaderboard.board import Board
from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import Refusal, Refused
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Competition, Event, Participant, in_utc

PSEUDONYM = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,38}[A-Za-z0-9])?")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes in URL-safe base64
_FIRST = "amber brave calm clever copper eager early fair fleet gentle golden keen lively lucid merry nimble quick"
_SECOND = "badger crane dolphin falcon finch fox heron ibex lark lynx marten otter owl plover robin seal swift tern"


@dataclass(frozen=True)
class Account:
    """A participant who has just been given a token. It is not kept, so it cannot be shown again."""

    pseudonym: str
    token: str


class Accounts(Board):
    """Who takes part, and until when."""

    def create_competition(
        self,
        *,
        tasks: Sequence[str],
        deadline: datetime,
        daily_quota: int,
        now: datetime,
        seed: int | None = None,
        division: str = "closed",
    ) -> Competition:
        """Open the competition of this leaderboard's name.

        Parameters
        ----------
        tasks
            The tasks' names: the overall score is over all of them.
        deadline
            Until when submissions are received; what was received by then is evaluated after it, too.
        daily_quota
            How many new submissions a participant may send in a day, by UTC.
        now
            The time.
        seed
            The secret seed of hidden data; drawn if it is not given.
        division
            By which rules: "closed" or "open". Submissions of the other are rejected.

        Raises
        ------
        Refused
            If there is one of this name already.
        ValueError
            If there is no task, or one twice, the deadline is over, the quota below 1, or there is no such division.
        """
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"a competition has one task or more, each once, not {list(tasks)}")
        if in_utc(deadline) <= in_utc(now):
            raise ValueError(f"the deadline {deadline.isoformat()} is over: choose a later one")
        _check_quota(daily_quota)
        if division not in DIVISIONS:
            raise ValueError(f"{division!r} is no division: {' or '.join(DIVISIONS)}")
        with self.database.writing() as session:
            if self._find(session) is not None:
                raise Refused(Refusal.TAKEN, f"there is a competition {self.name!r} already")
            competition = Competition(
                name=self.name,
                tasks=list(tasks),
                created=now,
                deadline=deadline,
                daily_quota=daily_quota,
                division=division,
                secret_seed=secrets.randbits(63) if seed is None else seed,
            )
            session.add(competition)
            session.flush()
            details = {"deadline": in_utc(deadline).isoformat(), "daily_quota": daily_quota}
            session.add(Event(competition_id=competition.id, at=now, kind="opened", details=details))
        return competition

    def change_rules(
        self, *, now: datetime, deadline: datetime | None = None, daily_quota: int | None = None
    ) -> Competition:
        """Change the deadline or the quota; the history says so. A ValueError if the quota is below 1."""
        now = in_utc(now)
        with self.database.writing() as session:
            competition = self._require(session)
            if deadline is not None:
                competition.deadline = in_utc(deadline)
            if daily_quota is not None:
                _check_quota(daily_quota)
                competition.daily_quota = daily_quota
            details = {"deadline": competition.deadline.isoformat(), "daily_quota": competition.daily_quota}
            session.add(Event(competition_id=competition.id, at=now, kind="rules-changed", details=details))
        return competition

    def add_participant(self, pseudonym: str | None = None, *, now: datetime) -> Account:
        """Let somebody take part, under a pseudonym of theirs or a new one.

        Raises
        ------
        Refused
            If the pseudonym is taken, or has other characters than letters A to Z, digits, spaces and . _ -
        """
        token, now = secrets.token_urlsafe(32), in_utc(now)
        with self.database.writing() as session:
            competition = self._require(session, lock=True)
            if pseudonym is None:
                pseudonym = _unused(session, competition)
            elif not PSEUDONYM.fullmatch(pseudonym):
                raise Refused(
                    Refusal.BAD_PSEUDONYM,
                    "a pseudonym has 1 to 40 letters A to Z, digits, spaces and . _ - and begins and ends with a "
                    "letter or digit",
                )
            elif _taken(session, competition, pseudonym):
                raise Refused(Refusal.TAKEN, f"somebody is called {pseudonym!r} already")
            participant = Participant(
                competition_id=competition.id, pseudonym=pseudonym, token_hash=_hashed(token), created=now
            )
            session.add(participant)
            session.add(Event(competition_id=competition.id, at=now, kind="joined", details={"participant": pseudonym}))
        return Account(pseudonym, token)

    def replace_token(self, pseudonym: str, *, now: datetime) -> Account:
        """Give a participant another token for one that was lost; the old one is worth nothing from now on.

        Refused if nobody is so called.
        """
        token, now = secrets.token_urlsafe(32), in_utc(now)
        with self.database.writing() as session:
            competition = self._require(session)
            participant = self._participant(session, competition, pseudonym)
            participant.token_hash = _hashed(token)
            session.add(
                Event(competition_id=competition.id, at=now, kind="token-replaced", details={"participant": pseudonym})
            )
        return Account(pseudonym, token)

    def authenticate(self, token: str) -> Participant:
        """Return whose token it is; Refused, always in the same words, if it is nobody's."""
        found = None
        if _TOKEN.fullmatch(token):
            with self.database.reading() as session:
                competition = self._require(session)
                found = session.scalar(select(Participant).where(Participant.token_hash == _hashed(token)))
            if found is not None and found.competition_id != competition.id:
                found = None
        if found is None or not hmac.compare_digest(found.token_hash, _hashed(token)):
            raise Refused(Refusal.UNKNOWN_TOKEN, "this is no participant's token: copy all 43 characters of it")
        return found


def _hashed(token: str) -> str:
    # The token is 32 random bytes: there is nothing to guess that a slow hash would have to protect.
    return hashlib.sha256(token.encode()).hexdigest()


def _check_quota(daily_quota: int) -> None:
    if daily_quota < 1:
        raise ValueError(f"a daily quota is 1 or more, not {daily_quota}")


def _taken(session: Session, competition: Competition, pseudonym: str) -> bool:
    same = (Participant.competition_id == competition.id, Participant.pseudonym == pseudonym)
    return session.scalar(select(Participant.id).where(*same)) is not None


def _unused(session: Session, competition: Competition) -> str:
    while True:
        words = secrets.choice(_FIRST.split()), secrets.choice(_SECOND.split()), str(secrets.randbelow(900) + 100)
        if not _taken(session, competition, pseudonym := "-".join(words)):
            return pseudonym
