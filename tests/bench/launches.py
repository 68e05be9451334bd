"""A measurement repeated in processes of its own.

Where a program's memory happens to lie changes its speed by about a percent, and stays the same until it is started
again; so a verdict between programs takes several launches. Each gives one value for each row; published are their
median and, as the interval, the smallest and the largest: of five launches that covers the true median 15 times in 16.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from tests.bench.training import Rows

LAUNCHES = 5


@dataclass(frozen=True)
class Wanted:
    """What a row is, its unit, and the least value that is hoped for, if any."""

    what: str
    unit: str
    aim: float | None = None


def verdict(low: float, high: float, aim: float) -> str:
    """Say whether the aim was reached: the whole interval must lie on one side."""
    return "reached" if low >= aim else "missed" if high < aim else "undecided"


def over_launches(module: str, rng: np.random.Generator, budget: float) -> Rows:
    """Run `python -m MODULE SEED SECONDS` several times and join what it prints: {row: [value, what, unit, aim]}."""
    launches = LAUNCHES if budget >= 10 else 2
    found: dict[str, list[float]] = {}
    wanted: dict[str, Wanted] = {}
    for _ in tqdm(range(launches), desc=module.rpartition(".")[2], unit="launch", leave=False):
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
    return {"value": value, "low": low, "high": high, "unit": wanted.unit, "what": what}


def report(rows: Mapping[str, tuple[float, Wanted]]) -> None:
    """Print what `over_launches` reads."""
    print(json.dumps({name: [value, w.what, w.unit, w.aim] for name, (value, w) in rows.items()}))
