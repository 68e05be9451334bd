"""Softmax and cross-entropy, a row at a time while it is in the cache."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.functions import exp, largest, load_or, maximum
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, fma, load_first, store_first, total
from tinytorch.kernels.compiled.threads import parallel_for

_INF = math.inf


@jit
def _top(x, at, width):
    """Return the largest of the numbers from x[at] on."""
    top = broadcast(np.float32(-_INF))
    for j in range(0, width, LANES):
        top = maximum(top, load_or(x, at + j, width - j, -_INF))
    return largest(top)


@jit
def _softmax(x, p, width, start, stop):
    for at in range(start * width, stop * width, width):
        top, added = _top(x, at, width), broadcast(np.float32(0))
        for j in range(0, width, LANES):
            e = exp(load_or(x, at + j, width - j, -_INF) - top)
            added = added + e
            store_first(p, at + j, e, width - j)
        share = broadcast(np.float32(1) / total(added))
        for j in range(0, width, LANES):
            store_first(p, at + j, load_first(p, at + j, width - j) * share, width - j)


@jit
def _softmax_grad(grad, p, out, width, start, stop):
    for at in range(start * width, stop * width, width):
        dot = broadcast(np.float32(0))
        for j in range(0, width, LANES):
            dot = fma(load_first(grad, at + j, width - j), load_first(p, at + j, width - j), dot)
        mean = broadcast(total(dot))
        for j in range(0, width, LANES):
            g = load_first(grad, at + j, width - j) - mean
            store_first(out, at + j, g * load_first(p, at + j, width - j), width - j)


@jit
def _sum_of_exp(x, at, width, top):
    added = broadcast(np.float32(0))
    for j in range(0, width, LANES):
        added = added + exp(load_or(x, at + j, width - j, -_INF) - top)
    return total(added)


@jit
def _log_softmax(x, out, width, start, stop):
    for at in range(start * width, stop * width, width):
        top = _top(x, at, width)
        log_sum = np.float32(math.log(_sum_of_exp(x, at, width, top)))
        for j in range(0, width, LANES):
            store_first(out, at + j, load_first(x, at + j, width - j) - top - log_sum, width - j)


@jit
def _cross_entropy(x, targets, losses, tops, totals, width, start, stop):
    for n in range(start, stop):
        tops[n] = _top(x, n * width, width)
        totals[n] = _sum_of_exp(x, n * width, width, tops[n])
        losses[n] = math.log(totals[n]) - (x[n * width + targets[n]] - tops[n])


@jit
def _cross_entropy_grad(grad, x, targets, tops, totals, out, width, start, stop):
    for n in range(start, stop):
        share, top = broadcast(grad[n] / totals[n]), tops[n]
        for j in range(0, width, LANES):
            e = exp(load_first(x, n * width + j, width - j) - top)
            store_first(out, n * width + j, e * share, width - j)
        out[n * width + targets[n]] -= grad[n]


def softmax(x: np.ndarray) -> np.ndarray:
    """Exponentiate and sum in one pass over each row, scale in a second one."""
    p = np.empty(x.shape, np.float32)
    width = _width(x)
    parallel_for(_softmax, x.size // width, x.ravel(), p.ravel(), width)
    return p


def softmax_grad(grad: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Sum grad * p over each row, then subtract and multiply."""
    out = np.empty(p.shape, np.float32)
    width = _width(p)
    parallel_for(_softmax_grad, p.size // width, grad.ravel(), p.ravel(), out.ravel(), width)
    return out


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Sum the exponentials of each row without keeping them."""
    out = np.empty(x.shape, np.float32)
    width = _width(x)
    parallel_for(_log_softmax, x.size // width, x.ravel(), out.ravel(), width)
    return out


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the losses with no array of exponentials or probabilities."""
    width, targets = _width(logits), targets.astype(np.int64, copy=False)
    losses, tops, totals = (np.empty(len(logits), np.float32) for _ in range(3))
    parallel_for(_cross_entropy, len(logits), logits.ravel(), targets, losses, tops, totals, width)
    return losses, tops, totals


def cross_entropy_grad(
    grad: np.ndarray, logits: np.ndarray, targets: np.ndarray, top: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Compute grad * (softmax - one_hot) in one pass over the logits."""
    width, targets = _width(logits), targets.astype(np.int64, copy=False)
    out = np.empty(logits.shape, np.float32)
    parallel_for(_cross_entropy_grad, len(logits), grad, logits.ravel(), targets, top, total, out.ravel(), width)
    return out


def _width(x: np.ndarray) -> int:
    if not x.shape[-1]:
        raise ValueError(f"softmax over nothing, shape {x.shape}")
    return x.shape[-1]
