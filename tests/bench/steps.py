"""A step of generation, to be timed again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tinytorch import nn


def step_of(model: nn.GPT, cache: Iterable, ids: np.ndarray, position: int) -> Callable[[], np.ndarray]:
    """Return a function that feeds ids (B, 1) behind `position` - 1 tokens, and returns what comes next, (B, vocab).

    The cache has seen `position` tokens or more.
    """

    def step() -> np.ndarray:
        for layer in cache:
            layer.length = position - 1  # keys and values of all positions lie there
        return np.asarray(model(ids, cache).data[:, -1])

    return step
