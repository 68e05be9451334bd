"""What the chapter leaves to the reader, and what it derives by hand."""

import re
from pathlib import Path

import numpy as np
import pytest

from tinytorch.acceleration import CacheHierarchy, CacheLevel

SOURCE = (Path(__file__).parents[2] / "chapters/15_acceleration/acceleration.md").read_text(encoding="utf-8")
CELLS = re.findall(r"```{code-cell} python\n(.*?)```", SOURCE, re.DOTALL)
SOLUTIONS = re.findall(r"```python\n(def .*?)```", SOURCE, re.DOTALL)


def solved(name: str):
    """Return the function of a folded solution."""
    names: dict[str, object] = {}
    exec(next(solution for solution in SOLUTIONS if f"def {name}(" in solution), names)
    return names[name]


@pytest.mark.parametrize("n", [64, 80])
def test_the_misses_of_the_third_order_are_those_of_the_simulator(n):
    """The chapter's other two orders are asserted in it; this one is the reader's."""
    j, k, i = np.indices((n, n, n)).reshape(3, -1)
    addresses = 4 * np.stack([k * n + j, 2 * n * n + i * n + k, 4 * n * n + i * n + j], axis=1)
    used = np.ones(addresses.shape, bool)
    used[1:, 0] = addresses[1:, 0] != addresses[:-1, 0]  # b's number waits in a variable
    cache = CacheHierarchy([CacheLevel("L1", size=2048, ways=32)])
    assert cache.simulate(addresses[used]).misses["L1"] == solved("column_misses")(n)


def test_two_merged_tiles_are_the_softmax_of_both():
    scores = np.random.default_rng(0).standard_normal(32)
    tiles = [(part.max(), (2.0 ** (part - part.max())).sum()) for part in np.split(scores, [20])]
    largest, total = solved("merge")(*tiles[0], *tiles[1])
    assert largest == scores.max()
    assert total == pytest.approx((2.0 ** (scores - largest)).sum())
