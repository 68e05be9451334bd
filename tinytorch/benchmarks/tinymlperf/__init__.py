"""TinyMLPerf: a competition whose scores are computed anew from what was submitted. Not affiliated with MLCommons.

`load_task`, `Submission`, `BenchmarkSuite` and `score` need nothing beside the package; `Leaderboard` and the command
need its extra `tinymlperf`. A model becomes a submission by `tinymlperf.export.export`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "BenchmarkSuite": "suite",
    "Leaderboard": "leaderboard",
    "Rejected": "rejection",
    "Result": "results",
    "Submission": "submission",
    "load_task": "tasks",
    "score": "scoring",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import what is asked for: a command that checks a file does not wait for a database's library."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
