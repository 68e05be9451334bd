"""Layer norm, a row at a time while it is in the L1 cache."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.functions import load_or
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, fma, load, load_first, store, total
from tinytorch.kernels.compiled.threads import parallel_for

_ROWS = 32  # of a block: the least that is worth a thread; of each block one sum is made


@jit
def _sum(x, at, width):
    """Add the numbers from x[at] on: in two sums, for one has to wait for itself."""
    pairs, whole = at + width // (2 * LANES) * 2 * LANES, at + width // LANES * LANES
    even = load_first(x, whole, at + width - whole)
    odd = load(x, pairs) if pairs < whole else broadcast(np.float32(0))
    for i in range(at, pairs, 2 * LANES):
        even, odd = even + load(x, i), odd + load(x, i + LANES)
    return total(even + odd)


@jit
def _sum_of_squares(x, at, width, mean):
    """Add the squares of x - mean."""
    pairs, whole = at + width // (2 * LANES) * 2 * LANES, at + width // LANES * LANES
    u = load_or(x, whole, at + width - whole, mean) - mean
    v = (load(x, pairs) if pairs < whole else broadcast(mean)) - mean
    even, odd = u * u, v * v
    for i in range(at, pairs, 2 * LANES):
        u, v = load(x, i) - mean, load(x, i + LANES) - mean
        even, odd = fma(u, u, even), fma(v, v, odd)
    return total(even + odd)


@jit
def _layer_norm(x, weight, bias, eps, y, mean, inv_std, start, stop):
    width = weight.size
    whole = width // LANES * LANES
    for row in range(start * _ROWS, min(stop * _ROWS, mean.size)):
        at = row * width
        m = _sum(x, at, width) / np.float32(width)
        squares = _sum_of_squares(x, at, width, m)
        r = np.float32(1) / np.float32(math.sqrt(squares / np.float32(width) + np.float32(eps)))
        mean[row], inv_std[row] = m, r
        for j in range(0, whole, LANES):
            store(y, at + j, fma((load(x, at + j) - m) * r, load(weight, j), load(bias, j)))
        for j in range(whole, width):
            y[at + j] = (x[at + j] - m) * r * weight[j] + bias[j]


@jit
def normalize(x, weight, bias, eps, y):
    """Layer norm of each row of x into y, both flat, without what a gradient needs."""
    rows = x.size // weight.size
    kept = np.empty(2 * rows, np.float32)
    _layer_norm(x, weight, bias, eps, y, kept[:rows], kept[rows:], 0, -(-rows // _ROWS))


@jit
def _layer_norm_grad(grad, x, weight, mean, inv_std, dx, dw, db, start, stop):
    width = weight.size
    whole, count = width // LANES * LANES, np.float32(width)
    for row in range(start * _ROWS, min(stop * _ROWS, mean.size)):
        at, to, m, r = row * width, row // _ROWS * width, mean[row], inv_std[row]
        added_g, added_gn = broadcast(np.float32(0)), broadcast(np.float32(0))
        for j in range(0, whole, LANES):
            n, g = (load(x, at + j) - m) * r, load(grad, at + j)
            store(db, to + j, load(db, to + j) + g)
            store(dw, to + j, fma(g, n, load(dw, to + j)))
            g = g * load(weight, j)
            added_g, added_gn = added_g + g, fma(g, n, added_gn)
        sum_g, sum_gn = total(added_g), total(added_gn)
        for j in range(whole, width):
            n, g = (x[at + j] - m) * r, grad[at + j]
            db[to + j] += g
            dw[to + j] += g * n
            sum_g += g * weight[j]
            sum_gn += g * weight[j] * n
        mean_g, mean_gn = sum_g / count, sum_gn / count
        for j in range(0, whole, LANES):
            n = (load(x, at + j) - m) * r
            store(dx, at + j, (fma(load(grad, at + j), load(weight, j), n * -mean_gn) - mean_g) * r)
        for j in range(whole, width):
            dx[at + j] = (grad[at + j] * weight[j] - (x[at + j] - m) * r * mean_gn - mean_g) * r


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum, sum of squares and result of a row, one after the other, while the row is in the L1 cache."""
    y, mean, inv_std = (np.empty(s, np.float32) for s in (x.shape, x.shape[:-1], x.shape[:-1]))
    weights, results = (weight.ravel(), bias.ravel()), (y.ravel(), mean.ravel(), inv_std.ravel())
    parallel_for(_layer_norm, -(-mean.size // _ROWS), x.ravel(), *weights, float(eps), *results)
    return y, mean, inv_std


def layer_norm_grad(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute a row's two means, then its gradient; dw and db are sums of blocks of rows, then of the blocks."""
    dx, blocks = np.empty(x.shape, np.float32), -(-mean.size // _ROWS)
    dw, db = np.zeros((2, blocks, weight.size), np.float32)
    inputs = (a.ravel() for a in (grad, x, weight, mean, inv_std))
    parallel_for(_layer_norm_grad, blocks, *inputs, dx.ravel(), dw.ravel(), db.ravel())
    return dx, dw.sum(axis=0), db.sum(axis=0)
