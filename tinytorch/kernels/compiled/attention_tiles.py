"""What the passes of attention do to a tile of the table of scores."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.functions import lanes, load_rows, transposed
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, REGISTERS, broadcast, load, store, where
from tinytorch.kernels.compiled.tiles import add_outer_product, load_tile, store_tile, zeros

ROWS = 8 if REGISTERS == 32 else 4  # of a tile in registers, 2 vectors wide
TILE, WIDTH = 2 * ROWS, 2 * LANES
QUERIES, KEYS = 4 * WIDTH, 128  # of a block: each block of keys is read once for 4 tiles of queries
LOG2_E, INF = math.log2(math.e), math.inf


@jit
def multiply(a, a_place, b, b_place, count, out, out_place, rows, columns, add):
    """Write (or add) a (rows, count) x b (count, columns) to out; columns is a multiple of WIDTH.

    A place is where the first number lies, and how far it is to the next row; for a, then, to the next column.
    """
    (i, a_row, a_column), (j, b_row), (at, out_row) = a_place, b_place, out_place
    whole = rows // ROWS * ROWS
    for c in range(0, columns, WIDTH):
        for r in range(0, whole, ROWS):
            target = at + r * out_row + c
            tile = load_rows(out, target, out_row, ROWS, 2) if add else zeros(TILE)
            for n in range(count):
                numbers = load_tile(b, j + n * b_row + c, 2)
                tile = add_outer_product(tile, a, i + r * a_row + n * a_column, a_row, numbers)
            store_tile(tile, out, target, out_row, 2)
        for r in range(whole, rows):
            target = at + r * out_row + c
            line = load_tile(out, target, 2) if add else zeros(2)
            for n in range(count):
                numbers = load_tile(b, j + n * b_row + c, 2)
                line = add_outer_product(line, a, i + r * a_row + n * a_column, a_row, numbers)
            store_tile(line, out, target, out_row, 2)


@jit
def turn(x, at, step, count, width, out, to):
    """Write rows of x as the columns of out (width, WIDTH); of those that are missing, zeros."""
    for n in range(0, WIDTH, LANES):
        for c in range(0, width, LANES):
            if n + LANES <= count:
                tile = load_rows(x, at + n * step + c, step, LANES, 1)
            else:
                tile = _rows_or_zeros(x, at + n * step + c, step, count - n)
            store_tile(transposed(tile), out, to + c * WIDTH + n, WIDTH, 1)


@jit
def _rows_or_zeros(x, at, step, count):
    box = np.empty(LANES * LANES, np.float32)
    for r in range(LANES):
        store(box, r * LANES, load(x, at + r * step) if r < count else broadcast(np.float32(0)))
    return load_tile(box, 0, LANES)


@jit
def hide(scores, key, count):
    """Set to -inf the scores of keys behind a query; the first key stands `key` places behind the first query."""
    for r in range(max(0, 1 - key), count):
        for n in range(0, WIDTH, LANES):
            behind = lanes() < broadcast(np.float32(key + r - n))
            store(scores, r * WIDTH + n, where(behind, broadcast(np.float32(-INF)), load(scores, r * WIDTH + n)))


@jit
def place(head, row, heads, steps):
    """Return where a row of head number `head` of all batch entries begins."""
    return head // heads * steps[0] + head % heads * steps[1] + row * steps[2]


@jit
def steps(x):
    """Return how many numbers lie from one batch entry, head and row of (B, H, T, d) to the next."""
    return x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
