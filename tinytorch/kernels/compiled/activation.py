"""ReLU and GELU in one pass over memory, whatever the order of the axes in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.kernels.activation import A, C
from tinytorch.kernels.compiled.functions import exp2
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.layout import dense, ordered_as
from tinytorch.kernels.compiled.simd import LANES, broadcast, fma, load, load_first, store, store_first, where
from tinytorch.kernels.compiled.threads import parallel_for

LOG2_E = math.log2(math.e)
_BLOCK = 1 << 14  # numbers: the least that is worth a thread


@jit
def _relu(x, out, start, stop):
    end, zero = min(stop * _BLOCK, x.size), broadcast(np.float32(0))
    whole = end // LANES * LANES
    for i in range(start * _BLOCK, whole, LANES):
        v = load(x, i)
        store(out, i, where(v < zero, zero, v))
    v = load_first(x, whole, end - whole)
    store_first(out, whole, where(v < zero, zero, v), end - whole)


@jit
def _relu_grad(grad, y, out, start, stop):
    part = slice(start * _BLOCK, stop * _BLOCK)
    grad, y, out = grad[part], y[part], out[part]
    for i in range(y.size):
        out[i] = grad[i] * (np.float32(1) if y[i] > 0 else np.float32(0))


@jit(forceinline=True)
def _exp_of_minus_2u(x):
    """With u = c (x + a x^3), (1 + tanh u) / 2 = 1 / (1 + e^-2u): GELU needs no tanh."""
    return exp2(x * fma(x * x, broadcast(np.float32(-2 * LOG2_E * C * A)), broadcast(np.float32(-2 * LOG2_E * C))))


@jit
def _gelu(x, out, start, stop):
    end = min(stop * _BLOCK, x.size)
    whole = end // LANES * LANES
    for i in range(start * _BLOCK, whole, LANES):
        v = load(x, i)
        store(out, i, v / (1.0 + _exp_of_minus_2u(v)))
    v = load_first(x, whole, end - whole)
    store_first(out, whole, v / (1.0 + _exp_of_minus_2u(v)), end - whole)


@jit
def gelu_in_place(x):
    """GELU of all numbers of a flat array."""
    _gelu(x, x, 0, -(-x.size // _BLOCK))


@jit
def _gelu_grad(grad, x, out, start, stop):
    end = min(stop * _BLOCK, x.size)
    for i in range(start * _BLOCK, end, LANES):
        count = end - i
        v = load_first(x, i, count)
        e = _exp_of_minus_2u(v)
        s = 1.0 / (1.0 + e)
        rest = where(e > 1e30, broadcast(np.float32(1)), e * s)  # 1 - s, to the last digit where s is nearly 1
        slope = fma(v * v, broadcast(np.float32(6 * C * A)), broadcast(np.float32(2 * C)))  # 2 du/dx
        store_first(out, i, load_first(grad, i, count) * fma(s * v, rest * slope, s), count)


def _apply(function: Any, x: np.ndarray, *before: np.ndarray) -> np.ndarray:
    """Call function(*before, x, out, start, stop) on the memory of arrays of one shape; return out."""
    x = dense(x)
    out = np.empty_like(x)
    flat = [a.ravel("K") for a in (*(ordered_as(b, x) for b in before), x, out)]
    parallel_for(function, -(-x.size // _BLOCK), *flat)
    return out


def relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0), in x's order of memory."""
    return _apply(_relu, x)


def relu_grad(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient where y > 0, in y's order of memory."""
    return _apply(_relu_grad, y, grad)


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x / (1 + e^-2u), in x's order of memory."""
    return _apply(_gelu, x)


def gelu_grad(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
    """With s = 1 / (1 + e^-2u), d gelu / dx = s + x s (1 - s) 2 du/dx; in x's order of memory."""
    return _apply(_gelu_grad, x, grad)
