"""Work divided among threads, in the same places whatever their number."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import Any

from tinytorch.kernels.backend import get_num_threads


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="tinytorch")


def parallel_for(kernel: Callable[..., Any], count: int, *args: Any) -> None:
    """Call `kernel(*args, start, stop)` so that every index of 0 ... count - 1 is covered once.

    The kernel holds no lock (`jit` compiles so) and writes what belongs to an index without looking at the others.
    """
    threads = min(get_num_threads(), count)
    if threads <= 1:
        kernel(*args, 0, count)
        return
    pool = _pool(threads)
    bounds = [count * i // threads for i in range(threads + 1)]
    futures = [pool.submit(kernel, *args, a, b) for a, b in pairwise(bounds)]
    for future in wait(futures).done:
        future.result()
