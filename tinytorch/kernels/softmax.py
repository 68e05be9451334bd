"""Softmax over the last axis, its logarithm, and cross-entropy, which is minus that logarithm at the right class."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from tinytorch.kernels.backend import kernel


@kernel
def softmax(x: np.ndarray) -> np.ndarray:
    """p_i = exp(x_i) / sum_j exp(x_j), over the last axis; a new array of x's shape."""
    p = x - x.max(axis=-1, keepdims=True)  # the shift keeps exp from overflowing
    np.exp(p, out=p)
    p /= p.sum(axis=-1, keepdims=True)
    return p


@softmax.naive
def softmax_naive(x: np.ndarray) -> np.ndarray:
    """Work number by number."""
    p = np.empty_like(x)
    for at in np.ndindex(x.shape[:-1]):
        row = x[at].tolist()
        top, total = _top_and_sum(row)
        for i, v in enumerate(row):
            p[at][i] = math.exp(v - top) / total
    return p


def _top_and_sum(row: list[float]) -> tuple[float, float]:
    """Return the largest number and the sum of exp(x - largest). A NaN counts as the largest."""
    top, total = row[0], 0.0
    for v in row:
        if v > top or math.isnan(v):
            top = v
    for v in row:
        total += math.exp(v - top)
    return top, total


@kernel
def softmax_grad(grad: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Gradient of `softmax` for x, from its result p, in the shape of p: p_i (g_i - sum_j g_j p_j)."""
    out = grad - np.einsum("...i,...i->...", grad, p)[..., None]
    out *= p
    return out


@softmax_grad.naive
def softmax_grad_naive(grad: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(p)
    for at in np.ndindex(p.shape[:-1]):
        dot = 0.0
        for g, q in zip(grad[at].tolist(), p[at].tolist(), strict=True):
            dot += g * q
        for i, (g, q) in enumerate(zip(grad[at].tolist(), p[at].tolist(), strict=True)):
            out[at][i] = q * (g - dot)
    return out


@kernel
def log_softmax(x: np.ndarray) -> np.ndarray:
    """x_i - log sum_j exp(x_j), over the last axis; a new array of x's shape."""
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


@log_softmax.naive
def log_softmax_naive(x: np.ndarray) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(x)
    for at in np.ndindex(x.shape[:-1]):
        row = x[at].tolist()
        top, total = _top_and_sum(row)
        for i, v in enumerate(row):
            out[at][i] = v - top - math.log(total)
    return out


@partial(kernel, indices=True)
def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return -log softmax(logits)[target] of each row, in nats, and what its gradient needs.

    Parameters
    ----------
    logits
        Scores (N, C).
    targets
        Class numbers (N,), each in 0 ... C - 1; nobody checks.

    Returns
    -------
    tuple of np.ndarray
        The losses, the largest score `top` of each row, and the sum of exp(score - top): (N,) each.
    """
    top = logits.max(axis=-1)
    shifted = logits - top[:, None]
    picked = shifted[np.arange(len(targets)), targets]
    total = np.exp(shifted, out=shifted).sum(axis=-1)
    return np.log(total) - picked, top, total


@cross_entropy.naive
def cross_entropy_naive(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Work number by number."""
    losses, tops, totals = (np.empty(len(logits), logits.dtype) for _ in range(3))
    for n in range(len(logits)):
        row = logits[n].tolist()
        tops[n], total = _top_and_sum(row)
        losses[n], totals[n] = math.log(total) - (row[targets[n]] - float(tops[n])), total
    return losses, tops, totals


@partial(kernel, indices=True)
def cross_entropy_grad(
    grad: np.ndarray, logits: np.ndarray, targets: np.ndarray, top: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Gradient of `cross_entropy` for the logits (N, C): grad (N,) times softmax - one_hot(target).

    `targets`, `top` and `total` are (N,), the latter two what `cross_entropy` returned.
    """
    p = np.exp(logits - top[:, None])
    p /= total[:, None]
    p[np.arange(len(targets)), targets] -= 1.0
    p *= grad[:, None]
    return p


@cross_entropy_grad.naive
def cross_entropy_grad_naive(
    grad: np.ndarray, logits: np.ndarray, targets: np.ndarray, top: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(logits)
    for n, c in np.ndindex(logits.shape):
        p = math.exp(float(logits[n, c]) - float(top[n])) / float(total[n])
        out[n, c] = float(grad[n]) * (p - (targets[n] == c))
    return out
