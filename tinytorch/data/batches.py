"""Random batches, from a generator that the caller passes in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def shuffled(n: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the numbers 0 ... n - 1 once, in random order, in batches; the last one may be smaller.

    >>> [len(batch) for batch in shuffled(5, 2, np.random.default_rng(0))]
    [2, 2, 1]
    """
    order = rng.permutation(n)
    for start in range(0, n, batch_size):
        yield order[start : start + batch_size]


def windows(
    tokens: np.ndarray, batch_size: int, length: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut `batch_size` random windows out of a text: inputs and next tokens, each int64 (batch_size, length).

    Raises
    ------
    ValueError
        If the text is not longer than one window.
    """
    if len(tokens) <= length:
        raise ValueError(f"a window of {length} tokens and its next one do not fit in a text of {len(tokens)}")
    starts = rng.integers(0, len(tokens) - length, batch_size)
    cut = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return cut[:, :-1], cut[:, 1:]
