"""Who is where in a competition: what was received, who evaluates it, what was found, and in which order they stand."""

from __future__ import annotations

from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import OVERALL, Entry, Ranked, rank
from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import LeaseLost, Refusal, Refused
from tinytorch.benchmarks.tinymlperf.leaderboard.store import Leaderboard
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import State

__all__ = ["OVERALL", "Entry", "Leaderboard", "LeaseLost", "Ranked", "Refusal", "Refused", "State", "rank"]
