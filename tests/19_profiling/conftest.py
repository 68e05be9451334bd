"""A small model to look at, and the backend on which its bytes are the same everywhere."""

import numpy as np
import pytest

from tinytorch import Tensor, backend, nn


@pytest.fixture
def on_numpy():
    with backend("numpy"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def model(rng):
    return nn.Sequential(nn.Linear(20, 30, rng=rng), nn.ReLU(), nn.Linear(30, 10, rng=rng))


@pytest.fixture
def batch(rng):
    return Tensor(rng.random((8, 20), np.float32)), rng.integers(0, 10, 8)
