"""What the pages and the JSON interface share: the leaderboard, the clock, who may ask how often."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import anyio
from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from tinytorch.benchmarks.tinymlperf.leaderboard import OVERALL, Leaderboard, Refusal, Refused
from tinytorch.benchmarks.tinymlperf.leaderboard.accounts import PSEUDONYM
from tinytorch.benchmarks.tinymlperf.leaderboard.files import Incoming
from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import Entry
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Participant
from tinytorch.benchmarks.tinymlperf.leaderboard.uploads import Receipt
from tinytorch.benchmarks.tinymlperf.web.rates import Buckets, Rates, network

STATUS = {
    Refusal.UNKNOWN_TOKEN: 401,
    Refusal.DEADLINE_PASSED: 403,
    Refusal.QUOTA_EXHAUSTED: 429,
    Refusal.TOO_LARGE: 413,
    Refusal.EMPTY: 400,
    Refusal.BAD_PSEUDONYM: 400,
    Refusal.TAKEN: 409,
    Refusal.NOT_FOUND: 404,
}
_CHECKS_AT_ONCE = 2


class BadSubmission(Exception):
    """The check refuses a file: its code, and what it says."""

    def __init__(self, refusal: str) -> None:
        super().__init__(refusal)
        self.code, _, message = refusal.partition(": ")
        self.message = message or "the check refuses this file"


@dataclass
class Site:
    """The competition as it is served.

    Attributes
    ----------
    board
        The leaderboard.
    check
        Looks at a file that was sent: None, or "code: message" if it is no good.
    clock
        Tells the time, with its zone.
    titles
        What tasks are called on pages.
    rates
        Who may ask how often.
    upload_seconds
        How long an upload may take.
    """

    board: Leaderboard
    check: Callable[[Path], str | None]
    clock: Callable[[], datetime]
    titles: Mapping[str, str]
    rates: Rates
    upload_seconds: float
    _checks: anyio.CapacityLimiter | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._requests = Buckets(self.rates.requests, self.clock)
        self._uploads = Buckets(self.rates.uploads, self.clock)
        self._participants = Buckets(self.rates.participant, self.clock)

    def title(self, task: str) -> str:
        """Return what a task is called."""
        return "All tasks" if task == OVERALL else self.titles.get(task, task)

    async def admit(self, request: Request) -> None:
        """Refuse an address that asks too often."""
        address = network(request.client.host if request.client else "")
        self._spend(self._requests, address)
        if request.method == "POST":
            self._spend(self._uploads, address)

    async def participant(self, token: str) -> Participant:
        """Return whose token it is, unless it is used too often."""
        found = await run_in_threadpool(self.board.authenticate, token)
        self._spend(self._participants, found.id)
        return found

    async def take(self, participant: Participant, incoming: Incoming, now: datetime) -> Receipt:
        """Check a file that has arrived, and queue it; BadSubmission or Refused if it is not taken."""
        if incoming.size == 0:
            raise Refused(Refusal.EMPTY, "the file is empty: choose the one that the export wrote")
        await run_in_threadpool(incoming.finish)
        if self._checks is None:
            self._checks = anyio.CapacityLimiter(_CHECKS_AT_ONCE)
        refusal = await anyio.to_thread.run_sync(self.check, incoming.path, limiter=self._checks)
        if refusal is not None:
            raise BadSubmission(refusal)
        return await run_in_threadpool(lambda: self.board.submit(participant, incoming, now=now))

    def entries(self, pseudonym: str) -> list[Entry]:
        """Return what of a participant is on the leaderboard; Refused, in the same words, if nothing or nobody is."""
        unknown = Refused(Refusal.NOT_FOUND, f"nobody called {pseudonym!r} is on the leaderboard")
        if not PSEUDONYM.fullmatch(pseudonym):  # PostgreSQL takes no zero bytes
            raise unknown
        try:
            found = self.board.participant_entries(pseudonym)
        except Refused:
            raise unknown from None
        if not found:
            raise unknown
        return found

    def _spend(self, buckets: Buckets, key: object) -> None:
        if wait := buckets.take(key):
            seconds = math.ceil(wait)
            detail = f"too-many-requests: ask again in {seconds} s"
            raise HTTPException(429, detail, headers={"Retry-After": str(seconds)})
