"""A whole convolutional network in one call: its layers as rows of a table, its weights in one array.

A call into compiled code costs about a microsecond, and so does an array; a small network has dozens of both. Here one
call works through the table for one image after the other, in memory that was allocated before and fits in the cache.
Each convolution writes where the next one reads, zeros around it included, and pools on the way.
"""

from __future__ import annotations

import numpy as np

from tinytorch.kernels.compiled.conv import TILES, convolve_row, seen_rows
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, either, flat, load_first, store_first, where

# One row of the table: convolution, bias, ReLU and pooling. Places are counted in numbers from the memory's start.
CONVOLUTION = np.dtype(
    [
        ("tile", np.int64),  # index in conv.TILES
        ("source", np.int64),  # where the padded input begins
        ("pitch", np.int64),  # from one of its rows to the next
        ("height", np.int64),  # rows of the input without padding
        ("padding", np.int64),
        ("stride", np.int64),
        ("step", np.int64),  # from one window to the next: stride * channels of the input
        ("kernel", np.int64),  # rows of the window
        ("run", np.int64),  # numbers under one of them
        ("weights", np.int64),  # where bias and weights begin
        ("rows", np.int64),  # of the result before pooling, as far as anyone reads them
        ("columns", np.int64),
        ("channels", np.int64),
        ("relu", np.int64),
        ("pool", np.int64),  # side of the pooling windows, 1 for none
        ("is_max", np.int64),
        ("scratch", np.int64),  # memory for `pool` rows of the result
        ("target", np.int64),  # where the output's first number goes
        ("target_pitch", np.int64),
    ]
)

# One row of the second table: a linear layer, and ReLU.
LINEAR = np.dtype([("inputs", np.int64), ("outputs", np.int64), ("weights", np.int64), ("relu", np.int64)])

LINEAR_VECTORS = 4  # the panels of linear layers suit every tile of so many vectors
_MANY, _SOME, _ONE = (max((t for t in TILES if t[1] == 4 and t[0] <= most), default=(1, 4)) for most in (14, 4, 1))
_TILES_OF_ROWS = tuple((TILES.index(t), t[0]) for t in (_MANY, _SOME, _ONE))
(_MANY_TILE, _MANY_ROWS), (_SOME_TILE, _SOME_ROWS), (_ONE_TILE, _) = _TILES_OF_ROWS


@jit
def _pool_row(memory, source, pitch, k, is_max, relu, columns, channels, target):
    """Pool k rows of `columns` pixels at memory[source] to one row at memory[target]."""
    zero, count = broadcast(np.float32(0)), broadcast(np.float32(k * k))
    for x in range(columns // k):
        for c in range(0, channels, LANES):
            rest = channels - c
            place = source + x * k * channels + c
            result = zero
            if is_max:
                result = load_first(memory, place, rest)
            for i in range(k):
                for j in range(k):
                    value = load_first(memory, place + i * pitch + j * channels, rest)
                    larger = where(either(value > result, value != value), value, result)
                    result = larger if is_max else result + value
            if not is_max:
                result = result / count
            elif relu:  # max and ReLU may change places: fewer numbers are left now
                result = where(result < zero, zero, result)
            store_first(memory, target + x * channels + c, result, rest)


@jit
def _convolve(s, packed, memory):
    """Carry out one row of the table."""
    relu_first = s.relu != 0 and not (s.pool > 1 and s.is_max != 0)
    pitch = s.columns * s.channels
    for y in range(s.rows):
        low, high = seen_rows(y, s.stride, s.padding, 1, s.height, s.kernel)
        target = s.target + y * s.target_pitch if s.pool == 1 else s.scratch + y % s.pool * pitch
        convolve_row(
            s.tile, memory, s.source + y * s.stride * s.pitch, s.pitch, s.step, s.kernel, low, high, s.run,
            packed, s.weights, relu_first, memory, target, s.columns, s.channels,
        )  # fmt: skip
        if s.pool > 1 and y % s.pool == s.pool - 1:
            place = s.target + y // s.pool * s.target_pitch
            _pool_row(memory, s.scratch, pitch, s.pool, s.is_max, s.relu, s.columns, s.channels, place)


@jit
def run(table, layers, packed, images, memory, hidden, out, start, stop):
    """Compute out[start:stop] of images (N, H, W, C).

    `memory` holds the layers of one image: zeros where nothing is written. `hidden` (2, N * widest) holds the inputs of
    the linear layers in turns, of one image behind those of another; the last layer writes to `out`.
    """
    height, width, channels = images.shape[1:]
    for n in range(start, stop):
        if len(table):
            first, last = table[0], table[len(table) - 1]
            inner = first.source + first.padding * (first.pitch + channels)
            for y in range(height):
                for x in range(width):
                    for c in range(channels):
                        memory[inner + y * first.pitch + x * channels + c] = images[n, y, x, c]
            for i in range(len(table)):
                _convolve(table[i], packed, memory)
            size = last.rows // last.pool * last.target_pitch
            result = hidden[0] if len(layers) else flat(out)
            for i in range(size):
                result[n * size + i] = memory[last.target + i]
        else:
            for x in range(channels):
                hidden[0, n * channels + x] = images[n, 0, 0, x]
    for i in range(len(layers)):
        s = layers[i]
        result = flat(out) if i == len(layers) - 1 else hidden[1 - i % 2]
        n = start
        while n < stop:
            rows = stop - n
            tile = _MANY_TILE if rows >= _MANY_ROWS else _SOME_TILE if rows >= _SOME_ROWS else _ONE_TILE
            if rows >= _MANY_ROWS:
                rows = rows // _MANY_ROWS * _MANY_ROWS
            elif rows >= _SOME_ROWS:
                rows = rows // _SOME_ROWS * _SOME_ROWS
            convolve_row(
                tile, hidden[i % 2], n * s.inputs, 0, s.inputs, 1, 0, 1, s.inputs,
                packed, s.weights, s.relu != 0, result, n * s.outputs, rows, s.outputs,
            )  # fmt: skip
            n += rows
