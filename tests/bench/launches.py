"""A measurement repeated in processes of its own.

A program's speed differs by about a percent from one launch to the next, and stays what it is until the program ends;
so a verdict between programs takes several launches. Each gives one value for each row; published are their median and,
as the interval, the smallest and the largest: of five launches that covers the true median 15 times in 16.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.bench.training import Rows

LAUNCHES = 5
TRIAL = 10.0  # seconds: who spends less wants to see that it works, not how fast it is


@dataclass(frozen=True)
class Wanted:
    """What a row is, its unit, and the least or the greatest value that is hoped for, if any."""

    what: str
    unit: str
    aim: float | None = None
    most: float | None = None


def verdict(low: float, high: float, aim: float) -> str:
    """Say whether a least value was reached: the whole interval must lie on one side."""
    return "reached" if low >= aim else "missed" if high < aim else "undecided"


def over_launches(module: str, rng: np.random.Generator, budget: float) -> Rows:
    """Run `python -m MODULE SEED SECONDS` several times and join what it prints: {row: [value, what, unit, aim, most]}.

    A trial has one launch, whose rows have no interval to speak of.
    """
    launches = LAUNCHES if budget >= TRIAL else 1
    found: dict[str, list[float]] = {}
    wanted: dict[str, Wanted] = {}
    for _ in range(launches):
        command = [sys.executable, "-m", module, str(rng.integers(1 << 31)), str(budget / launches)]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if process.returncode:
            raise AssertionError(f"{' '.join(command[1:])} ended with {process.returncode}")
        for name, (value, *words) in json.loads(process.stdout).items():
            found.setdefault(name, []).append(value)
            wanted[name] = Wanted(*words)
    return {name: joined(values, wanted[name]) for name, values in found.items()}


def joined(values: list[float], wanted: Wanted) -> dict[str, Any]:
    """Make a row of `tinytorch.book.results` of the values of several launches."""
    value, low, high = (float(f"{f(values):.4g}") for f in (np.median, min, max))
    what = wanted.what
    if wanted.aim is not None:
        what += f" (aim at least {wanted.aim:g}: {verdict(low, high, wanted.aim)})"
    if wanted.most is not None:
        what += f" (aim at most {wanted.most:g}: {verdict(-high, -low, -wanted.most)})"
    return {"value": value, "low": low, "high": high, "unit": wanted.unit, "what": what}


def report(rows: Mapping[str, tuple[float, Wanted]]) -> None:
    """Print what `over_launches` reads."""
    print(json.dumps({name: [value, w.what, w.unit, w.aim, w.most] for name, (value, w) in rows.items()}))
