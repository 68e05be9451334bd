"""What the tests of the leaderboard share: times, participants, and reports as an evaluator writes them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard
from tinytorch.benchmarks.tinymlperf.scoring import Ratios, score
from tinytorch.profiling.timing.statistics import Estimate

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DEADLINE = NOW + timedelta(days=30)
TASKS = ["images", "text"]
MINUTE = timedelta(minutes=1)


def join(board: Leaderboard, pseudonym: str | None = None) -> Any:
    """Return a new participant."""
    return board.authenticate(board.add_participant(pseudonym, now=NOW).token)


def report(task: str = "images", speedup: float = 2.0, spread: float = 0.01, passed: bool = True) -> dict[str, Any]:
    """Return what an evaluator reports of a submission with this speed-up, counted costs as the reference's."""
    interval = Estimate(speedup, speedup / (1 + spread), speedup * (1 + spread))
    total = score({task: Ratios(interval, 1.0, 1.0, 1.0, passed)}, [task])
    return {
        "task": task,
        "quality": 92.0,
        "passed": passed,
        "speedup": [interval.low, interval.value, interval.high],
        "flops_ratio": 1.0,
        "bytes_ratio": 1.0,
        "activation_ratio": 1.0,
        "score": [total.score.low, total.score.value, total.score.high],
        "deterministic_score": total.deterministic,
        "seconds": 1.5,
        "machine": "a test",
        "seed": 1,
        "versions": {},
    }


def scored(board: Leaderboard, participant: Any, content: bytes, now: datetime = NOW, **of_report: Any) -> int:
    """Submit, lease and score; return the submission's number."""
    receipt = board.submit(participant, content, now=now)
    lease = board.lease("w", now=now)
    assert lease is not None
    board.score(lease, report(**of_report), now=now)
    return receipt.submission
