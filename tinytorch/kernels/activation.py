"""GELU, worked through in blocks that stay in the cache between its elementary steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_C = float(np.sqrt(2.0 / np.pi))
_A = 0.044715
_BLOCK = 1 << 14  # elements: a few float32 buffers of it fit in a core's L1 and L2 caches


def _blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    flat = [a.reshape(-1) for a in arrays]  # C-contiguous arrays: views, not copies
    for start in range(0, flat[0].size, _BLOCK):
        yield tuple(f[start : start + _BLOCK] for f in flat)


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x * Phi(x), by the tanh approximation of Hendrycks & Gimpel, "Gaussian error linear units" (2016).

    0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): what GPT-2 uses, and PyTorch's `approximate="tanh"`.
    """
    x = np.asarray(x, order="C")  # ascontiguousarray would turn a scalar into a vector
    out = np.empty_like(x)
    for xb, ob in _blocks(x, out):
        np.multiply(xb, xb, out=ob)
        ob *= _C * _A
        ob += _C
        ob *= xb  # c (x + a x^3)
        np.tanh(ob, out=ob)
        ob += 1.0
        ob *= xb
        ob *= 0.5
    return out


def gelu_grad(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gradient of `gelu` for x, recomputing tanh: cheaper than having kept it."""
    x, grad = np.asarray(x, order="C"), np.asarray(grad, order="C")
    out = np.empty_like(x)
    for xb, gb, ob in _blocks(x, grad, out):
        squared = xb * xb
        np.multiply(squared, _C * _A, out=ob)
        ob += _C
        ob *= xb
        t = np.tanh(ob, out=ob)
        squared *= 1.5 * _C * _A
        squared += 0.5 * _C
        squared *= xb  # 0.5 x du/dx
        squared *= 1.0 - t * t
        t += 1.0
        t *= 0.5
        t += squared  # d gelu / dx = 0.5 (1 + t) + 0.5 x (1 - t^2) du/dx
        t *= gb
    return out
