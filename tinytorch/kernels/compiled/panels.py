"""Panels: the numbers of some images side by side, feature by feature, as `sparse.py` computes with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES
from tinytorch.kernels.compiled.tiles import add_corner, load_spread, store_corner, store_tile, turn, zeros


@jit
def pack(x, first, count, shape, width, memory, inner, plane, pitch):
    """Copy images first ... first + count - 1 of x, feature by feature; of `width` lanes the rest become zero."""
    channels, height, run = shape
    size = channels * height * run
    for g in range(0, width, LANES):
        rows = min(max(count - g, 0), LANES)
        for c in range(channels):
            for y in range(height):
                source = (first + g) * size + (c * height + y) * run
                target = inner + c * plane + y * pitch + g
                for f in range(0, run, LANES):
                    if rows == LANES and f + LANES <= run:
                        tile = turn(load_spread(x, source + f, size, LANES))
                        store_tile(tile, memory, target + f * width, width, 1)
                    else:
                        tile = turn(add_corner(zeros(LANES), x, source + f, size, rows, run - f, 1))
                        store_corner(tile, memory, target + f * width, width, run - f, LANES, 1)


@jit
def unpack(memory, source, width, first, count, size, out):
    """Copy `size` features of `count` images to rows of out."""
    for g in range(0, count, LANES):
        for f in range(0, size, LANES):
            tile = turn(load_spread(memory, source + f * width + g, width, LANES))
            store_corner(tile, out, (first + g) * size + f, size, count - g, size - f, 1)


def aligned(make: Any, size: int) -> np.ndarray:
    """Make an array that begins where a line of the cache begins: a vector across two lines is read twice."""
    memory = make(size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + size]
