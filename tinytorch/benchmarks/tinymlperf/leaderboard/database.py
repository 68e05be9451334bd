"""One way to talk to SQLite and PostgreSQL: transactions that read, and transactions that write one after the other."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Base

_BUSY_SECONDS = 30.0  # how long a writer of SQLite waits for another
_CREATION = 6_118_020  # the number of the lock under which PostgreSQL's tables are made: any will do


class Database:
    """A database by its URL, its tables made if they are not there.

    SQLite lets one transaction write at a time; it takes that right when it begins, so that what it has read is still
    true when it writes. On PostgreSQL rows are locked where they are read to be changed.

    Parameters
    ----------
    url
        `sqlite:///file.db` or `postgresql+psycopg://user@host/name`.

    Raises
    ------
    ValueError
        If the URL is of another kind, or of a database in memory, which threads and workers could not share.
    """

    def __init__(self, url: str) -> None:
        parsed = _checked(url)
        self.path = Path(parsed.database) if parsed.database and parsed.get_backend_name() == "sqlite" else None
        self._engine = _sqlite(parsed) if self.path else create_engine(parsed, pool_pre_ping=True)
        weakref.finalize(self, self._engine.dispose)  # Python 3.13 warns of connections that nobody closes
        self._writing = self._engine.execution_options(writes=True)
        with self._writing.begin() as connection:
            if self.path is None:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION})
            Base.metadata.create_all(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that changes nothing."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session whose changes are all kept, or none of them after an exception."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()


def _checked(url: str) -> URL:
    advice = "use sqlite:///file.db or postgresql+psycopg://user@host/name"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(f"the address of the database cannot be read: {advice}") from None
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ValueError(f"{parsed.drivername} is no database of leaderboards: {advice}")
    if parsed.drivername == "sqlite" and (parsed.database or ":memory:") == ":memory:":
        raise ValueError("a leaderboard in memory could not be shared by its threads: name a file, sqlite:///file.db")
    return parsed


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: `begin` below does
        for setting in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={int(1000 * _BUSY_SECONDS)}"):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
