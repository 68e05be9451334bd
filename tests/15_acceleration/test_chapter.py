"""What the chapter leaves to the reader, and what it derives by hand."""

from functools import partial

import numpy as np
import pytest

from tests import solutions
from tinytorch.acceleration import CacheHierarchy, CacheLevel

solved = partial(solutions.solved, "15_acceleration")


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
