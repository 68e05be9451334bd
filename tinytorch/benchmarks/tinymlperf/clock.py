"""The one clock: of leaderboards no part asks what time it is, it is told."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time of this machine, with its zone."""
    return datetime.now(UTC)
