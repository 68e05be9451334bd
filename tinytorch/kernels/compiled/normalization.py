"""Batch norm, a block of pixels at a time; layer norm has a file of its own.

Channels lie side by side in memory. Where their number is no multiple of a vector's lanes, a period is: that many
channels and lanes, lcm(C, LANES) numbers, after which the same channels meet the same lanes again. The kernels treat an
image as rows of one period and keep a sum, a scale and so on for each place in it.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.conv import images_last
from tinytorch.kernels.compiled.functions import scratch
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.layer_norm import layer_norm, layer_norm_grad
from tinytorch.kernels.compiled.simd import (
    LANES,
    broadcast,
    fma,
    load,
    load_first,
    store,
    store_first,
    where,
)
from tinytorch.kernels.compiled.threads import parallel_for

__all__ = ["batch_norm", "batch_norm_grad", "batch_norm_weight_grad", "layer_norm", "layer_norm_grad", "scale_shift"]

_NUMBERS = 1 << 12  # of a block of batch norm: as many as stay in the L1 cache between two passes
_SUMMED, _WRITTEN = (1, 16), (256, 1)  # numbers of a row and rows of a block, at least


@jit
def _moments(x, period, rows, block, sums, squares, start, stop):
    """Sum a block of rows place by place, then the squares of the distances from the block's mean."""
    for b in range(start, stop):
        count = min(block, rows - b * block)
        for place in range(0, period, LANES):
            first = b * block * period + place
            odd_one = load(x, first + (count - 1) * period) if count % 2 else broadcast(np.float32(0))
            even, odd = odd_one, broadcast(np.float32(0))  # two sums: one waits for itself
            for r in range(0, count - 1, 2):
                even, odd = even + load(x, first + r * period), odd + load(x, first + (r + 1) * period)
            store(sums, b * period + place, even + odd)
            mean = (even + odd) / np.float32(count)
            u = odd_one - mean
            even, odd = (u * u if count % 2 else broadcast(np.float32(0))), broadcast(np.float32(0))
            for r in range(0, count - 1, 2):
                u, v = load(x, first + r * period) - mean, load(x, first + (r + 1) * period) - mean
                even, odd = fma(u, u, even), fma(v, v, odd)
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
def _repeated(numbers, period):
    """Repeat the numbers of channels until the end of a period."""
    out = scratch(period)
    for i in range(0, period, numbers.size):
        out[i : i + numbers.size] = numbers
    return out


@jit
def _affine(x, mean, scale, shift, least, y, period, rows, block, start, stop):
    """y = max((x - mean) scale + shift, least)."""
    means, scales, shifts = _repeated(mean, period), _repeated(scale, period), _repeated(shift, period)
    lowest = broadcast(np.float32(least))
    for row in range(start * block, min(stop * block, rows)):
        for j in range(0, period, LANES):
            v = fma(load(x, row * period + j) - load(means, j), load(scales, j), load(shifts, j))
            store(y, row * period + j, where(v < lowest, lowest, v))
    if stop > rows // block:  # the last block has the numbers behind the last whole row
        for j in range(0, x.size - rows * period, LANES):
            i, count = rows * period + j, x.size - rows * period - j
            v = fma(load_first(x, i, count) - load(means, j), load(scales, j), load(shifts, j))
            store_first(y, i, where(v < lowest, lowest, v), count)


@jit
def _gradient_sums(grad, x, mean, sums, products, period, rows, block, start, stop):
    """Sum grad and grad (x - mean) of each block, place by place."""
    means, behind = _repeated(mean, period), rows * period
    for b in range(start, stop):
        first, last = b * block, min((b + 1) * block, rows)
        for place in range(0, period, LANES):
            m, g = load(means, place), broadcast(np.float32(0))
            p = g
            if b == rows // block:  # g is 0 in the lanes behind the last number
                g = load_first(grad, behind + place, x.size - behind - place)
                p = g * (load_first(x, behind + place, x.size - behind - place) - m)
            for row in range(first, last):
                i = row * period + place
                g, p = g + load(grad, i), fma(load(grad, i), load(x, i) - m, p)
            store(sums, b * period + place, g)
            store(products, b * period + place, p)


@jit
def _join_sums(sums, products, inv_std, dw, db):
    """Add up the blocks in float64."""
    channels = inv_std.size
    for c in range(channels):
        g, p = 0.0, 0.0
        for i in range(c, sums.size, channels):
            g += sums[i]
            p += products[i]
        dw[c], db[c] = p * inv_std[c], g


@jit
def _batch_norm_grad(grad, x, mean, scale, slope, shift, dx, period, rows, block, start, stop):
    """dx = scale grad + slope (x - mean) + shift."""
    means, scales = _repeated(mean, period), _repeated(scale, period)
    slopes, shifts = _repeated(slope, period), _repeated(shift, period)
    for row in range(start * block, min(stop * block, rows)):
        for j in range(0, period, LANES):
            i = row * period + j
            v = fma(load(x, i) - load(means, j), load(slopes, j), load(shifts, j))
            store(dx, i, fma(load(grad, i), load(scales, j), v))
    if stop > rows // block:
        for j in range(0, x.size - rows * period, LANES):
            i, count = rows * period + j, x.size - rows * period - j
            v = fma(load_first(x, i, count) - load(means, j), load(slopes, j), load(shifts, j))
            store_first(dx, i, fma(load_first(grad, i, count), load(scales, j), v), count)


def _rows(x: np.ndarray, least: int, rows: int) -> tuple[int, int, int]:
    """Return the numbers of a row (whole periods, `least` at least), the whole rows, and those of a block."""
    period = math.lcm(x.shape[-1], LANES)
    period *= -(-least // period)
    return period, x.size // period, max(_NUMBERS // period, rows)


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take both moments of a block while it is in the L1 cache, join them, then normalize: x is read twice."""
    image = images_last(x)
    flat, y = image.ravel(), np.empty(image.shape, np.float32)
    period, rows, block = sizes = _rows(image, *_SUMMED)
    filled = -(-rows // block)
    sums, squares = np.empty((2, filled * period), np.float32)
    mean, var = np.empty((2, image.shape[-1]), np.float32)
    parallel_for(_moments, filled, flat, *sizes, sums, squares)
    _join_moments(flat, image.shape[-1], *sizes, sums, squares, mean, var)
    inv_std = 1.0 / np.sqrt(var + np.float32(eps))
    numbers = mean, weight.ravel() * inv_std, bias.ravel(), -math.inf
    period, rows, block = _rows(image, *_WRITTEN)
    parallel_for(_affine, rows // block + 1, flat, *numbers, y.ravel(), period, rows, block)
    return y.transpose(0, 3, 1, 2), mean, var, inv_std


def batch_norm_grad(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum over all pixels, then compute dx: both arrays are read twice."""
    g, image, mean = images_last(grad), images_last(x), mean.ravel()
    dx, count = np.empty(image.shape, np.float32), np.float32(x.size // x.shape[1])
    dw, db = batch_norm_weight_grad(grad, x, mean, inv_std)
    scale, (period, rows, block) = weight.ravel() * inv_std, _rows(image, *_WRITTEN)
    numbers = mean, scale, scale * inv_std * dw / -count, scale * db / -count
    parallel_for(
        _batch_norm_grad, rows // block + 1, g.ravel(), image.ravel(), *numbers, dx.ravel(), period, rows, block
    )
    return dx.transpose(0, 3, 1, 2), dw, db


def batch_norm_weight_grad(
    grad: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum blocks in float32, and the blocks' sums in float64."""
    g, image = images_last(grad), images_last(x)
    period, rows, block = _rows(image, *_SUMMED)
    blocks = rows // block + 1
    sums, products = np.empty((2, blocks * period), np.float32)
    parallel_for(_gradient_sums, blocks, g.ravel(), image.ravel(), mean.ravel(), sums, products, period, rows, block)
    dw, db = np.empty((2, len(mean)), np.float32)
    _join_sums(sums, products, inv_std.ravel(), dw, db)
    return dw, db


def scale_shift(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool) -> np.ndarray:
    """Read each number once and write it once."""
    image = images_last(x)
    y, (period, rows, block) = np.empty(image.shape, np.float32), _rows(image, *_WRITTEN)
    numbers, least = (np.zeros(len(scale), np.float32), scale.ravel(), shift.ravel()), 0.0 if relu else -math.inf
    parallel_for(_affine, rows // block + 1, image.ravel(), *numbers, least, y.ravel(), period, rows, block)
    return y.transpose(0, 3, 1, 2)
