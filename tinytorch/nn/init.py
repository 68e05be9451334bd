"""How weights begin: random numbers from a generator that the caller passes in."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.nn.module import Parameter


def generator(rng: np.random.Generator | None) -> np.random.Generator:
    """Return rng, or a freshly seeded generator where none was given: pass one to get the same numbers again."""
    return np.random.default_rng() if rng is None else rng


def uniform_fan_in(shape: tuple[int, ...], fan_in: int, rng: np.random.Generator) -> Parameter:
    """Draw from U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for Linear and Conv2d.

    Source: the "commonly used heuristic" of Glorot & Bengio, "Understanding the difficulty of training deep feedforward
    neural networks" (2010), equation 1.

    A ValueError if there are no inputs.
    """
    if fan_in < 1:
        raise ValueError(f"weights need inputs to be multiplied with: this layer would have {fan_in} inputs")
    bound = 1.0 / math.sqrt(fan_in)
    return Parameter(rng.uniform(-bound, bound, shape).astype(np.float32))


def normal(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> Parameter:
    """Draw from a normal distribution of mean 0."""
    return Parameter(rng.normal(0.0, std, shape).astype(np.float32))
