"""Normalization to mean 0 and variance 1 over chosen axes, then scale and shift: batch norm and layer norm."""

from __future__ import annotations

import numpy as np

Axes = tuple[int, ...]


def normalize(x: np.ndarray, axes: Axes, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (x - mean) / sqrt(var + eps) with mean, biased variance and 1 / sqrt(var + eps), kept broadcastable."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    var = np.square(centred).mean(axis=axes, keepdims=True)
    inv_std = 1.0 / np.sqrt(var + x.dtype.type(eps))
    centred *= inv_std
    return centred, mean, var, inv_std


def normalize_grad(grad: np.ndarray, normalized: np.ndarray, inv_std: np.ndarray, axes: Axes) -> np.ndarray:
    """Gradient of `normalize` for x, mean and variance depending on x too.

    inv_std * (g - mean(g) - n * mean(g * n)): Ioffe & Szegedy, "Batch normalization" (2015), section 3, simplified.
    """
    out = grad - grad.mean(axis=axes, keepdims=True)
    out -= normalized * (grad * normalized).mean(axis=axes, keepdims=True)
    out *= inv_std
    return out
