"""How far the competition's scores can be trusted: one submission, evaluated again and again.

Its rows: `spread`, the largest score over the smallest, of 20 evaluations of the 8-bit reference CNN on new samples
each time; `score`, their median; `deterministic`, how many different scores without the time there were.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tests.bench.training import Rows
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.making import made
from tinytorch.benchmarks.tinymlperf.suite import BenchmarkSuite

EVALUATIONS = 20


def trust_20(rng: np.random.Generator, seconds: float) -> Rows:
    """Evaluate it, with so many seconds for all."""
    with tempfile.TemporaryDirectory() as folder:
        path = export(*made("reference_cnn", bits=8)).save(Path(folder) / "int8.safetensors")
        each = seconds / EVALUATIONS / 3  # two scenarios, and what is around them
        found = [BenchmarkSuite(each, int(seed)).evaluate(path) for seed in rng.integers(1 << 62, size=EVALUATIONS)]
    scores = np.array([result.score.score.value for result in found])
    same = len({result.score.deterministic for result in found})
    spread = float(100 * (scores.max() / scores.min() - 1))
    what = f"Largest over smallest of {EVALUATIONS} scores of one file (aim at most 2: {_verdict(spread)})"
    rows = {
        "spread": (spread, spread, spread, "%", what),
        "score": (float(scores.min()), float(np.median(scores)), float(scores.max()), "", "Its score"),
        "deterministic": (same, same, same, "", "Different scores without the time among them"),
    }
    names = "low", "value", "high", "unit", "what"
    return {name: dict(zip(names, row, strict=True)) for name, row in rows.items()}


def _verdict(spread: float) -> str:
    return "reached" if spread <= 2 else "missed"
