"""ReLU and GELU, element by element: the memory's speed is the bound, so each is one pass over it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tinytorch.kernels.backend import kernel

C = math.sqrt(2.0 / math.pi)
A = 0.044715
_BLOCK = 1 << 14  # elements: a few float32 buffers of it fit in a core's L1 and L2 caches


@kernel
def relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0); NaN stays NaN."""
    return np.maximum(x, 0)


@relu.naive
def relu_naive(x: np.ndarray) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(x)
    for at in np.ndindex(x.shape):
        out[at] = 0 if x[at] < 0 else x[at]
    return out


@kernel
def relu_grad(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of `relu` for x, from its result y: the gradient where y > 0, times 0 elsewhere."""
    return grad * (y > 0)


@relu_grad.naive
def relu_grad_naive(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(grad)
    for at in np.ndindex(y.shape):
        out[at] = grad[at] * (y[at] > 0)
    return out


def _blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    flat = [a.reshape(-1) for a in arrays]  # C-contiguous arrays: views, not copies
    for start in range(0, flat[0].size, _BLOCK):
        yield tuple(f[start : start + _BLOCK] for f in flat)


@kernel
def gelu(x: np.ndarray) -> np.ndarray:
    """Return x * Phi(x), by the tanh approximation of Hendrycks & Gimpel, "Gaussian error linear units" (2016).

    0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): what GPT-2 uses, and PyTorch's `approximate="tanh"`.
    """
    x = np.asarray(x, order="C")  # ascontiguousarray would turn a scalar into a vector
    out = np.empty_like(x)
    for xb, ob in _blocks(x, out):  # blocks that stay in the cache between the elementary steps
        np.multiply(xb, xb, out=ob)
        ob *= C * A
        ob += C
        ob *= xb  # c (x + a x^3)
        np.tanh(ob, out=ob)
        ob += 1.0
        ob *= xb
        ob *= 0.5
    return out


@gelu.naive
def gelu_naive(x: np.ndarray) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(x)
    for at in np.ndindex(x.shape):
        v = float(x[at])
        out[at] = 0.5 * v * (1.0 + math.tanh(C * (v + A * v * v * v)))
    return out


@kernel
def gelu_grad(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gradient of `gelu` for x, recomputing tanh: cheaper than having kept it."""
    x, grad = np.asarray(x, order="C"), np.asarray(grad, order="C")
    out = np.empty_like(x)
    for xb, gb, ob in _blocks(x, grad, out):
        squared = xb * xb
        np.multiply(squared, C * A, out=ob)
        ob += C
        ob *= xb
        t = np.tanh(ob, out=ob)
        squared *= 1.5 * C * A
        squared += 0.5 * C
        squared *= xb  # 0.5 x du/dx
        squared *= 1.0 - t * t
        t += 1.0
        t *= 0.5
        t += squared  # d gelu / dx = 0.5 (1 + t) + 0.5 x (1 - t^2) du/dx
        t *= gb
    return out


@gelu_grad.naive
def gelu_grad_naive(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(x)
    for at in np.ndindex(x.shape):
        v = float(x[at])
        t = math.tanh(C * (v + A * v * v * v))
        out[at] = float(grad[at]) * (0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * C * (1.0 + 3.0 * A * v * v))
    return out
