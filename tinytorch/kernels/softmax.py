"""Softmax and log-softmax over the last axis."""

from __future__ import annotations

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    """p_i = exp(x_i) / sum_j exp(x_j), over the last axis; a new array of x's shape."""
    p = x - x.max(axis=-1, keepdims=True)  # the shift keeps exp from overflowing
    np.exp(p, out=p)
    p /= p.sum(axis=-1, keepdims=True)
    return p


def softmax_grad(grad: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Gradient of `softmax` for x, from its result p: p_i (g_i - sum_j g_j p_j)."""
    out = grad - np.einsum("...i,...i->...", grad, p)[..., None]
    out *= p
    return out


def log_softmax(x: np.ndarray) -> np.ndarray:
    """x_i - log sum_j exp(x_j), over the last axis; a new array of x's shape."""
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
