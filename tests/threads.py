"""Threads that use one thing at the same time."""

import threading
from collections.abc import Callable

import numpy as np


def assert_the_same_in_threads(function: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> None:
    """Call a function in a thread for each batch, ten times: it returns what it returns alone."""
    expected, found = [function(x) for x in batches], [np.empty(0)] * len(batches)

    def work(i: int) -> None:
        for _ in range(10):
            found[i] = function(batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
