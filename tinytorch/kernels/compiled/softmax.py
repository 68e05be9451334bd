"""Softmax and cross-entropy, a row at a time while it is in the cache."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.functions import exp, exp2, largest, load_or, maximum
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, fma, load, load_first, store, store_first, total
from tinytorch.kernels.compiled.threads import parallel_for

_INF = math.inf


@jit
def _top(x, at, width):
    """Return the largest of the numbers from x[at] on."""
    pairs, whole = at + width // (2 * LANES) * 2 * LANES, at + width // LANES * LANES
    top = load_or(x, whole, at + width - whole, -_INF)
    odd = load(x, pairs) if pairs < whole else top
    for i in range(at, pairs, 2 * LANES):  # two at a time: a maximum waits for the one before it
        top, odd = maximum(top, load(x, i)), maximum(odd, load(x, i + LANES))
    return largest(maximum(top, odd))


@jit
def _sum_of_exp(x, at, width, top):
    """Return the sum of exp(x - top)."""
    whole, added = at + width // LANES * LANES, broadcast(np.float32(0))
    for i in range(at, whole, LANES):
        added = added + exp(load(x, i) - top)
    return total(added + exp(load_or(x, whole, at + width - whole, -_INF) - top))


@jit
def _scaled_exp(x, at, width, top, scale, out):
    """Write exp(x - top) * scale."""
    whole, rest = at + width // LANES * LANES, width % LANES
    for i in range(at, whole, LANES):
        store(out, i, exp(load(x, i) - top) * scale)
    store_first(out, whole, exp(load_first(x, whole, rest) - top) * scale, rest)


@jit
def _softmax(x, p, width, start, stop):
    """Compute rows start ... stop - 1: the largest, then powers of 2 and their sum, then shares."""
    log2_e = broadcast(np.float32(math.log2(math.e)))
    for at in range(start * width, stop * width, width):
        whole, rest = at + width // LANES * LANES, width % LANES
        top = _top(x, at, width)
        last = exp2((load_or(x, whole, rest, -_INF) - top) * log2_e)
        added = last
        for i in range(at, whole, LANES):
            e = exp2((load(x, i) - top) * log2_e)
            added = added + e
            store(p, i, e)
        share = np.float32(1) / total(added)
        for i in range(at, whole, LANES):
            store(p, i, load(p, i) * share)
        store_first(p, whole, last * share, rest)


@jit
def _softmax_grad(grad, p, out, width, start, stop):
    for at in range(start * width, stop * width, width):
        whole, rest = at + width // LANES * LANES, width % LANES
        g, q = load_first(grad, whole, rest), load_first(p, whole, rest)
        dot = g * q
        for i in range(at, whole, LANES):
            dot = fma(load(grad, i), load(p, i), dot)
        mean = total(dot)
        for i in range(at, whole, LANES):
            store(out, i, (load(grad, i) - mean) * load(p, i))
        store_first(out, whole, (g - mean) * q, rest)


@jit
def _log_softmax(x, out, width, start, stop):
    for at in range(start * width, stop * width, width):
        whole, rest, top = at + width // LANES * LANES, width % LANES, _top(x, at, width)
        log_sum = np.float32(math.log(_sum_of_exp(x, at, width, top)))
        for i in range(at, whole, LANES):
            store(out, i, load(x, i) - top - log_sum)
        store_first(out, whole, load_first(x, whole, rest) - top - log_sum, rest)


@jit
def _cross_entropy(x, targets, losses, tops, totals, width, start, stop):
    for n in range(start, stop):
        tops[n] = _top(x, n * width, width)
        totals[n] = _sum_of_exp(x, n * width, width, tops[n])
        losses[n] = math.log(totals[n]) - (x[n * width + targets[n]] - tops[n])


@jit
def _cross_entropy_grad(grad, x, targets, tops, totals, out, width, start, stop):
    for n in range(start, stop):
        _scaled_exp(x, n * width, width, tops[n], grad[n] / totals[n], out)
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
