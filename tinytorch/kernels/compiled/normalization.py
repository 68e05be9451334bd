"""Layer norm a row at a time, batch norm a block of pixels at a time.

Channels lie side by side in memory. Where their number is no multiple of a vector's lanes, a period is: that many
channels and lanes, lcm(C, LANES) numbers, after which the same channels meet the same lanes again. The kernels treat an
image as rows of one period and keep a sum, a scale and so on for each place in it.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.conv import images_last
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import (
    LANES,
    broadcast,
    fma,
    load,
    load_first,
    store,
    store_first,
    total,
    where,
)
from tinytorch.kernels.compiled.threads import parallel_for

_ROWS = 32  # of layer norm: the least that is worth a thread; of each block one sum is made
_NUMBERS = 1 << 12  # of a block of batch norm: as many as stay in the L1 cache between two passes

# Layer norm


@jit
def _layer_norm(x, weight, bias, eps, y, mean, inv_std, start, stop):
    width = weight.size
    whole, rest = width // LANES * LANES, width % LANES
    for row in range(start * _ROWS, min(stop * _ROWS, mean.size)):
        at = row * width
        added = load_first(x, at + whole, rest)
        for j in range(0, whole, LANES):
            added = added + load(x, at + j)
        m = total(added) / np.float32(width)
        added = broadcast(np.float32(0))
        for j in range(0, whole, LANES):
            v = load(x, at + j) - m
            added = fma(v, v, added)
        squares = total(added)
        for j in range(at + whole, at + width):
            squares += (x[j] - m) * (x[j] - m)
        r = np.float32(1) / np.float32(math.sqrt(squares / np.float32(width) + np.float32(eps)))
        mean[row], inv_std[row] = m, r
        for j in range(0, whole, LANES):
            store(y, at + j, fma((load(x, at + j) - m) * r, load(weight, j), load(bias, j)))
        for j in range(whole, width):
            y[at + j] = (x[at + j] - m) * r * weight[j] + bias[j]


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


# Batch norm


@jit
def _moments(x, period, rows, block, sums, squares, start, stop):
    """Sum a block of rows place by place, then the squares of the distances from the block's mean."""
    for b in range(start, stop):
        count = min(block, rows - b * block)
        for place in range(0, period, LANES):
            first = b * block * period + place
            end = first + count * period
            even, odd = broadcast(np.float32(0)), broadcast(np.float32(0))  # two sums: one waits for itself
            for i in range(first, end - period, 2 * period):
                even, odd = even + load(x, i), odd + load(x, i + period)
            if count % 2:
                even = even + load(x, end - period)
            store(sums, b * period + place, even + odd)
            mean = (even + odd) / np.float32(count)
            even, odd = broadcast(np.float32(0)), broadcast(np.float32(0))
            for i in range(first, end - period, 2 * period):
                u, v = load(x, i) - mean, load(x, i + period) - mean
                even, odd = fma(u, u, even), fma(v, v, odd)
            if count % 2:
                u = load(x, end - period) - mean
                even = fma(u, u, even)
            store(squares, b * period + place, even + odd)


@jit
def _join_moments(x, channels, period, rows, block, sums, squares, mean, var):
    """Join the blocks' moments in float64, and the numbers behind the last whole row.

    Source: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """
    n = x.size // channels
    for c in range(channels):
        m = 0.0
        for i in range(c, sums.size, channels):
            m += sums[i] / n
        for i in range(rows * period + c, x.size, channels):
            m += x[i] / n
        v = 0.0
        for i in range(c, sums.size, channels):
            count = min(block, rows - i // period * block)
            v += squares[i] / n + count * (sums[i] / count - m) ** 2 / n
        for i in range(rows * period + c, x.size, channels):
            v += (x[i] - m) ** 2 / n
        mean[c], var[c] = m, v


@jit
def _affine(x, mean, scale, shift, least, y, period, rows, block, start, stop):
    """y = max((x - mean) scale + shift, least)."""
    lowest, behind = broadcast(np.float32(least)), rows * period
    for b in range(start, stop):
        for row in range(b * block * period, min((b + 1) * block, rows) * period, period):
            for place in range(0, period, LANES):
                v = fma(load(x, row + place) - load(mean, place), load(scale, place), load(shift, place))
                store(y, row + place, where(v < lowest, lowest, v))
        if b == rows // block:  # the numbers behind the last whole row belong to the last block
            for place in range(0, x.size - behind, LANES):
                count = x.size - behind - place
                v = load_first(x, behind + place, count) - load(mean, place)
                v = fma(v, load(scale, place), load(shift, place))
                store_first(y, behind + place, where(v < lowest, lowest, v), count)


@jit
def _gradient_sums(grad, x, mean, sums, products, period, rows, block, start, stop):
    """Sum grad and grad (x - mean) of each block, place by place."""
    behind = rows * period
    for b in range(start, stop):
        last = min((b + 1) * block, rows) * period
        for place in range(0, period, LANES):
            m, g = load(mean, place), broadcast(np.float32(0))
            p = g
            if b == rows // block:  # g is 0 in the lanes behind the last number
                g = load_first(grad, behind + place, x.size - behind - place)
                p = g * (load_first(x, behind + place, x.size - behind - place) - m)
            for i in range(b * block * period + place, last + place, period):
                g, p = g + load(grad, i), fma(load(grad, i), load(x, i) - m, p)
            store(sums, b * period + place, g)
            store(products, b * period + place, p)


@jit
def _batch_norm_grad(grad, x, mean, scale, slope, shift, dx, period, rows, block, start, stop):
    """dx = scale grad + slope (x - mean) + shift."""
    behind = rows * period
    for b in range(start, stop):
        last = min((b + 1) * block, rows) * period
        for place in range(0, period, LANES):
            m, a, s, t = load(mean, place), load(scale, place), load(slope, place), load(shift, place)
            for i in range(b * block * period + place, last + place, period):
                store(dx, i, fma(load(grad, i), a, fma(load(x, i) - m, s, t)))
            if b == rows // block:
                count = x.size - behind - place
                g, v = load_first(grad, behind + place, count), load_first(x, behind + place, count)
                store_first(dx, behind + place, fma(g, a, fma(v - m, s, t)), count)


class _Rows:
    """An image's numbers as rows of one period, in blocks of rows; one block at least, the last with what is left."""

    def __init__(self, x: np.ndarray) -> None:
        """Take an image (N, H, W, C)."""
        self.channels = x.shape[-1]
        self.period = math.lcm(self.channels, LANES)
        self.rows = x.size // self.period
        self.block = max(_NUMBERS // self.period, 16)
        self.blocks = self.rows // self.block + 1
        self.sizes = self.period, self.rows, self.block

    def repeated(self, *numbers: np.ndarray) -> np.ndarray:
        """Repeat numbers (C,) of channels until the period's end."""
        return np.tile(np.stack(numbers), self.period // self.channels)


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take both moments of a block while it is in the L1 cache, join them, then normalize: x is read twice."""
    image = images_last(x)
    flat, rows, y = image.ravel(), _Rows(image), np.empty(image.shape, np.float32)
    filled = -(-rows.rows // rows.block)
    sums, squares = np.empty((2, filled * rows.period), np.float32)
    mean, var = np.empty((2, rows.channels), np.float32)
    parallel_for(_moments, filled, flat, *rows.sizes, sums, squares)
    _join_moments(flat, rows.channels, *rows.sizes, sums, squares, mean, var)
    inv_std = 1.0 / np.sqrt(var + np.float32(eps))
    numbers = rows.repeated(mean, weight * inv_std, bias)
    parallel_for(_affine, rows.blocks, flat, *numbers, -math.inf, y.ravel(), *rows.sizes)
    return y.transpose(0, 3, 1, 2), mean, var, inv_std


def batch_norm_grad(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum over all pixels, then compute dx: both arrays are read twice."""
    g, image = images_last(grad), images_last(x)
    rows, dx, count = _Rows(image), np.empty(image.shape, np.float32), np.float32(x.size // x.shape[1])
    dw, db = _weight_grad(g, image, mean, inv_std)
    scale = weight * inv_std
    numbers = rows.repeated(mean, scale, scale * inv_std * dw / -count, scale * db / -count)
    parallel_for(_batch_norm_grad, rows.blocks, g.ravel(), image.ravel(), *numbers, dx.ravel(), *rows.sizes)
    return dx.transpose(0, 3, 1, 2), dw, db


def batch_norm_weight_grad(
    grad: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum blocks in float32, and the blocks' sums in float64."""
    return _weight_grad(images_last(grad), images_last(x), mean, inv_std)


def _weight_grad(
    grad: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows = _Rows(x)
    sums = np.empty((2, rows.blocks * rows.period), np.float32)
    (means,) = rows.repeated(mean)
    parallel_for(_gradient_sums, rows.blocks, grad.ravel(), x.ravel(), means, sums[0], sums[1], *rows.sizes)
    db, products = sums.reshape(2, -1, rows.channels).sum(axis=1, dtype=np.float64)
    return (products * inv_std).astype(np.float32), db.astype(np.float32)


def scale_shift(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool) -> np.ndarray:
    """Read each number once and write it once."""
    image = images_last(x)
    rows, y = _Rows(image), np.empty(image.shape, np.float32)
    numbers = rows.repeated(np.zeros_like(scale), scale, shift)
    least = 0.0 if relu else -math.inf
    parallel_for(_affine, rows.blocks, image.ravel(), *numbers, least, y.ravel(), *rows.sizes)
    return y.transpose(0, 3, 1, 2)
