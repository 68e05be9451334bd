"""The same measurement on one thread, and on all that this process may use.

Libraries keep their threads looking for more work for some milliseconds after a call. On one thread nobody is disturbed
by that; on all, the next one's turn would be. So those turns have a pause before them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

import tinytorch
from tests.bench.turns import TURN, timer
from tinytorch.profiling.timing.clock import more_calls, time_calls

PAUSE = 0.025  # seconds; OpenBLAS looks for work for 2^26 cycles, 20 ms, the others for less
_FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Threads:
    """How many threads every side has, and what rows and words are called then."""

    count: int = 1

    @property
    def suffix(self) -> str:
        """Behind a row's name."""
        return "" if self.count == 1 else "_threads"

    @property
    def words(self) -> str:
        """Behind what a row is."""
        return "" if self.count == 1 else f", {self.count} threads"

    def rounds(self, functions: Sequence[Callable[[], object]], rng: np.random.Generator, seconds: float) -> np.ndarray:
        """Time functions in turns: seconds per call, (rounds, functions)."""
        return timer(rng, seconds).rounds(functions) if self.count == 1 else _rounds(functions, rng, seconds)


ONE = Threads()


@contextmanager
def all_threads() -> Iterator[Threads]:
    """Let kernels, BLAS, PyTorch, and sessions of onnxruntime that are made meanwhile, use a thread for each core."""
    import torch

    ours, theirs = tinytorch.get_num_threads(), torch.get_num_threads()
    tinytorch.set_num_threads(None)
    count = tinytorch.get_num_threads()
    try:
        with threadpool_limits(count):
            torch.set_num_threads(count)
            yield Threads(count)
    finally:
        tinytorch.set_num_threads(ours)
        torch.set_num_threads(theirs)


def _rounds(functions: Sequence[Callable[[], object]], rng: np.random.Generator, seconds: float) -> np.ndarray:
    clock, calls = time.perf_counter, []
    for function in functions:
        function()
        count = 1
        while (elapsed := time_calls(function, count, clock)) < TURN:
            count = more_calls(count, elapsed, TURN)
        calls.append(count)
    times: list[np.ndarray] = []
    start = clock()
    while len(times) < _FEWEST_ROUNDS or clock() - start < seconds:
        row = np.empty(len(functions))
        for i in rng.permutation(len(functions)):
            time.sleep(PAUSE)
            row[i] = time_calls(functions[i], calls[i], clock) / calls[i]
        times.append(row)
    return np.array(times)
