"""How far the competition's scores can be trusted: one submission, evaluated again and again.

Its rows: `spread`, the largest score over the smallest, of 20 evaluations of the 8-bit reference CNN on new samples
each time; `score`, their median; `deterministic`, how many different scores without the time there were.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np

from tests.bench.launches import TRIAL
from tests.bench.training import Rows
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.making import made
from tinytorch.benchmarks.tinymlperf.suite import TOLERANCE, BenchmarkSuite

EVALUATIONS, TRIED = 20, 2  # the second in a trial


def trust_20(rng: np.random.Generator, seconds: float) -> Rows:
    """Evaluate it, with so many seconds for all."""
    with tempfile.TemporaryDirectory() as folder:
        path = export(*made("reference_cnn", bits=8)).save(Path(folder) / "int8.safetensors")
        count = EVALUATIONS if seconds >= TRIAL else TRIED
        each = seconds / count / 3  # two scenarios, and what is around them
        tolerance = TOLERANCE if seconds >= TRIAL else math.inf  # a trial may be made beside other work
        found = [
            BenchmarkSuite(each, int(seed), tolerance=tolerance).evaluate(path)
            for seed in rng.integers(1 << 62, size=count)
        ]
    scores = np.array([result.score.score.value for result in found])
    same = len({result.score.deterministic for result in found})
    spread = float(100 * (scores.max() / scores.min() - 1))
    what = f"Largest over smallest of {count} scores of one file (aim at most 2: {_verdict(spread, 2)})"
    other = "Different scores without the time among them"
    rows = {
        "spread": (spread, spread, spread, "%", what),
        "score": (float(scores.min()), float(np.median(scores)), float(scores.max()), "", "Its score"),
        "deterministic": (same, same, same, "", f"{other} (aim at most 1: {_verdict(same, 1)})"),
    }
    names = "low", "value", "high", "unit", "what"
    return {name: dict(zip(names, row, strict=True)) for name, row in rows.items()}


def _verdict(value: float, most: float) -> str:
    return "reached" if value <= most else "missed"
