"""Leaderboards on both databases."""

import importlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard

boards = importlib.import_module("tests.20_benchmarking.boards")
postgres = importlib.import_module("tests.20_benchmarking.postgres")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def own_postgres_url(postgres_url: str) -> str:
    """Return the URL of a database that no other test uses."""
    name = f"own{next(_numbers)}"
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_url.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'board.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def make(url: str, tmp_path: Path) -> Iterator[Callable[..., Leaderboard]]:
    """Return a function that opens a competition of its own in the database: make(daily_quota=5)."""
    opened = []

    def create(daily_quota: int = 5, **options: Any) -> Leaderboard:
        board = Leaderboard(url, files=tmp_path / "files", competition=f"c{next(_numbers)}", **options)
        opened.append(board)
        board.create_competition(
            tasks=boards.TASKS, deadline=boards.DEADLINE, daily_quota=daily_quota, now=boards.NOW, seed=1
        )
        return board

    yield create
    for board in opened:
        board.close()


@pytest.fixture
def board(make: Callable[..., Leaderboard]) -> Leaderboard:
    return make()
