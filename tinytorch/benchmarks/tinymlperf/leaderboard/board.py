"""What all parts of a leaderboard stand on: its database, its folder of files, its competition."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from tinytorch.benchmarks.tinymlperf.leaderboard.database import Database
from tinytorch.benchmarks.tinymlperf.leaderboard.files import FileStore
from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import Refusal, Refused
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Competition, Participant
from tinytorch.benchmarks.tinymlperf.limits import Limits


class Board:
    """A competition in a database, and the folder with its files: `Leaderboard` tells how it is opened.

    No part of it asks what time it is: every call that depends on it is given `now`, an aware datetime.
    """

    def __init__(
        self,
        url: str = "sqlite:///tinymlperf.db",
        *,
        files: Path | None = None,
        competition: str = "tinymlperf",
        lease: timedelta = timedelta(minutes=5),
        max_attempts: int = 3,
        max_bytes: int = Limits().file_bytes,
    ) -> None:
        if lease <= timedelta(0) or max_attempts < 1 or max_bytes < 1:
            raise ValueError(f"a lease of {lease}, {max_attempts} attempts, {max_bytes} bytes: all are more than zero")
        self.database = Database(url)
        if files is None:
            if self.database.path is None:
                raise ValueError("PostgreSQL has no folder of its own for submitted files: name one with files=")
            files = self.database.path.with_name(f"{self.database.path.name}.files")
        self.files = FileStore(files, max_bytes)
        self.name, self.lease_time, self.max_attempts = competition, lease, max_attempts

    @property
    def competition(self) -> Competition:
        """The rules as they stand; Refused if the competition has not been created."""
        with self.database.reading() as session:
            return self._require(session)

    def close(self) -> None:
        """Let go of all connections."""
        self.database.close()

    def _find(self, session: Session, lock: bool = False) -> Competition | None:
        query = select(Competition).where(Competition.name == self.name)
        return session.scalar(query.with_for_update(key_share=True) if lock else query)

    def _require(self, session: Session, lock: bool = False) -> Competition:
        found = self._find(session, lock)
        if found is None:
            raise Refused(Refusal.NOT_FOUND, f"there is no competition {self.name!r} here: create it first")
        return found

    def _participant(self, session: Session, competition: Competition, pseudonym: str) -> Participant:
        same = (Participant.competition_id == competition.id, Participant.pseudonym == pseudonym)
        found = session.scalar(select(Participant).where(*same))
        if found is None:
            raise Refused(Refusal.NOT_FOUND, f"nobody is called {pseudonym!r}")
        return found
