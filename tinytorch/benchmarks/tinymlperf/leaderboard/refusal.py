"""Why a leaderboard does not do what it is asked to: a code that stays the same, and a sentence."""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """The reasons. That a submission itself is no good is another matter: `rejection.Code`."""

    UNKNOWN_TOKEN = "unknown-token"
    DEADLINE_PASSED = "deadline-passed"
    QUOTA_EXHAUSTED = "quota-exhausted"
    TOO_LARGE = "too-large"
    EMPTY = "empty"
    BAD_PSEUDONYM = "bad-pseudonym"
    TAKEN = "taken"
    NOT_FOUND = "not-found"


class Refused(ValueError):
    """The leaderboard does not do it; nothing has changed."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class LeaseLost(RuntimeError):
    """A worker's lease is over: it expired, or somebody else has the submission. What the worker found is not taken."""
