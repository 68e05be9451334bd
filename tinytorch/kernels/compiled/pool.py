"""Pooling over images with their channels last: a vector holds one pixel's channels, a window is a few of them."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels.compiled.conv import images_last
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, either, flat, load_first, store_first, where
from tinytorch.kernels.compiled.threads import parallel_for
from tinytorch.kernels.conv import output_size


@jit
def _max(x, k, stride, out, start, stop):
    height, width, channels = x.shape[1:]
    rows, columns = out.shape[1:3]
    a, b = flat(x), flat(out)
    for item in range(start, stop):
        n, y = divmod(item, rows)
        for z in range(columns):
            first = ((n * height + y * stride) * width + z * stride) * channels
            for c in range(0, channels, LANES):
                rest = channels - c
                best = load_first(a, first + c, rest)
                for i in range(k):
                    for j in range(k):
                        value = load_first(a, first + (i * width + j) * channels + c, rest)
                        best = where(either(value > best, value != value), value, best)  # NaN wins, and stays
                store_first(b, (item * columns + z) * channels + c, best, rest)


@jit
def _max_grad(grad, x, y, k, stride, out, start, stop):
    height, width, channels = x.shape[1:]
    rows, columns = y.shape[1:3]
    a, b, g, d = flat(x), flat(y), flat(grad), flat(out)
    zero = broadcast(np.float32(0))
    for n in range(start, stop):
        size = height * width * channels
        for c in range(0, size, LANES):
            store_first(d, n * size + c, zero, size - c)
        for r in range(rows):
            for z in range(columns):
                first = ((n * height + r * stride) * width + z * stride) * channels
                place = ((n * rows + r) * columns + z) * channels
                for c in range(0, channels, LANES):
                    rest = channels - c
                    left, largest = load_first(g, place + c, rest), load_first(b, place + c, rest)
                    for i in range(k):
                        for j in range(k):
                            at = first + (i * width + j) * channels + c
                            here = load_first(a, at, rest)
                            taken = where(here != largest, zero, left)
                            if i == k - 1 and j == k - 1:
                                taken = left  # what nobody took: of windows with NaN
                            left = left - taken
                            store_first(d, at, load_first(d, at, rest) + taken, rest)


@jit
def _mean(x, k, stride, out, start, stop):
    height, width, channels = x.shape[1:]
    rows, columns = out.shape[1:3]
    a, b, share = flat(x), flat(out), broadcast(np.float32(k * k))
    for item in range(start, stop):
        n, y = divmod(item, rows)
        for z in range(columns):
            first = ((n * height + y * stride) * width + z * stride) * channels
            for c in range(0, channels, LANES):
                rest = channels - c
                total = broadcast(np.float32(0))
                for i in range(k):
                    for j in range(k):
                        total = total + load_first(a, first + (i * width + j) * channels + c, rest)
                store_first(b, (item * columns + z) * channels + c, total / share, rest)


@jit
def _mean_grad(grad, k, stride, out, start, stop):
    height, width, channels = out.shape[1:]
    rows, columns = grad.shape[1:3]
    g, d, share = flat(grad), flat(out), broadcast(np.float32(k * k))
    for n in range(start, stop):
        for r in range(rows):
            for z in range(columns):
                first = ((n * height + r * stride) * width + z * stride) * channels
                for c in range(0, channels, LANES):
                    rest = channels - c
                    part = load_first(g, ((n * rows + r) * columns + z) * channels + c, rest) / share
                    for i in range(k):
                        for j in range(k):
                            at = first + (i * width + j) * channels + c
                            store_first(d, at, load_first(d, at, rest) + part, rest)


def _pool(function, x, kernel, stride):
    images = images_last(x)
    n, height, width, channels = images.shape
    shape = (n, output_size(height, kernel, stride, 0), output_size(width, kernel, stride, 0), channels)
    out = np.empty(shape, np.float32)
    parallel_for(function, shape[0] * shape[1], images, kernel, stride, out)
    return out.transpose(0, 3, 1, 2)


def max_pool2d(x, kernel, stride):
    """Return the largest value of every window: (N, C, Ho, Wo). NaN wins over every number, as in NumPy."""
    return _pool(_max, x, kernel, stride)


def avg_pool2d(x, kernel, stride):
    """Return the mean of every window: (N, C, Ho, Wo)."""
    return _pool(_mean, x, kernel, stride)


def max_pool2d_grad(grad, x, y, kernel, stride):
    """Gradient of `max_pool2d`, whose result was y, for x: all of a window's goes to its first largest element."""
    images = images_last(x)
    out = np.empty(images.shape, np.float32)
    parallel_for(_max_grad, len(images), images_last(grad), images, images_last(y), kernel, stride, out)
    return out.transpose(0, 3, 1, 2)


def avg_pool2d_grad(grad, input_shape, kernel, stride):
    """Gradient of `avg_pool2d` for x: every element of a window gets 1/k^2 of its gradient."""
    n, channels, height, width = input_shape
    out = np.zeros((n, height, width, channels), np.float32)
    parallel_for(_mean_grad, n, images_last(grad), kernel, stride, out)
    return out.transpose(0, 3, 1, 2)
