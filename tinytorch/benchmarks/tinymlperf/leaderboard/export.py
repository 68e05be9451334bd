"""The ranking as CSV and JSON: columns that stay the same, cells that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import Ranked

COLUMNS = (
    "rank",
    "tied",
    "participant",
    "task",
    "passed",
    "score",
    "score_low",
    "score_high",
    "deterministic_score",
    "quality",
    "speedup",
    "speedup_low",
    "speedup_high",
    "flops_ratio",
    "bytes_ratio",
    "activation_ratio",
    "received",
    "submission",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def records(ranked: Iterable[Ranked]) -> list[dict[str, Any]]:
    """Return the ranking as JSON objects with the keys `COLUMNS`; what a row does not have is None."""
    return [_record(one) for one in ranked]


def to_csv(ranked: Iterable[Ranked]) -> str:
    """Return the ranking as CSV (RFC 4180).

    A text that a spreadsheet would take for a formula begins with an apostrophe (OWASP, "CSV injection").
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for record in records(ranked):
        writer.writerow([_cell(value) for value in record.values()])
    return text.getvalue()


def _record(one: Ranked) -> dict[str, Any]:
    entry, ratios = one.entry, one.entry.ratios
    speedup = ratios.speedup if ratios else None
    values = (
        one.rank,
        one.tied,
        entry.participant,
        entry.task,
        entry.passed,
        entry.score.value,
        entry.score.low,
        entry.score.high,
        entry.deterministic,
        entry.quality,
        speedup.value if speedup else None,
        speedup.low if speedup else None,
        speedup.high if speedup else None,
        ratios.flops if ratios else None,
        ratios.bytes if ratios else None,
        ratios.activation if ratios else None,
        entry.received.isoformat(),
        entry.submission,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
