"""What the tests of compiled kernels share."""

import contextlib
import math
from typing import Any
from unittest import mock

import numpy as np
import pytest

GUARD = np.float32(-7e37)  # no result comes near it


@contextlib.contextmanager
def _guarded_allocations():
    """Let every array that `np.empty` and its like give lie between guards; check them in the end."""
    buffers: list[tuple[np.ndarray, int, int]] = []

    def guarded(shape: Any, dtype: Any = np.float64) -> np.ndarray:
        size = math.prod(shape) if isinstance(shape, tuple) else int(shape)
        memory = np.full(size + 128, GUARD, dtype)
        buffers.append((memory, 64, 64 + size))
        return memory[64 : 64 + size].reshape(shape)

    def guarded_like(x: np.ndarray) -> np.ndarray:
        order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
        out = guarded(tuple(x.shape[axis] for axis in order), x.dtype)
        return out.transpose(np.argsort(order)) if order else out

    def zeros(shape: Any, dtype: Any = np.float64) -> np.ndarray:
        out = guarded(shape, dtype)
        out[...] = 0
        return out

    with mock.patch.multiple(np, empty=guarded, empty_like=guarded_like, zeros=zeros, zeros_like=np.zeros_like):
        yield
    for memory, start, stop in buffers:
        assert (memory[:start] == np.asarray(GUARD, memory.dtype)).all()
        assert (memory[stop:] == np.asarray(GUARD, memory.dtype)).all()


@pytest.fixture(scope="session")
def guarded_allocations():
    """A context; kernels have to be compiled before it begins, for Numba's compiler uses `np.empty` too."""
    return _guarded_allocations
