"""Matrix products: the plain loops compiled, and a register tile that keeps the multipliers busy.

The plan is that of Goto & van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), as BLIS lays it
out: a panel of b, a few vectors wide, is copied so that it is read in one stream; a tile of the result stays in
registers while k runs; every number loaded is used for a whole row or column of the tile.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, REGISTERS, broadcast, flat, fma, load_first, store_first
from tinytorch.kernels.compiled.threads import parallel_for
from tinytorch.kernels.compiled.tiles import (
    add_corner,
    add_dot_products,
    add_outer_product,
    load_tile,
    store_corner,
    store_tile,
    store_totals,
    zeros,
)
from tinytorch.kernels.matmul import batch_shape, pairs

VECTORS = 4 if REGISTERS == 32 else 2  # of a panel of b
ROWS = (REGISTERS - VECTORS - 1) // VECTORS  # of a tile: what the registers hold beside a row of b and a number of a
TILE, WIDTH = ROWS * VECTORS, VECTORS * LANES
_DEPTH = 1024  # of k at a time, at most: a panel of b of this depth takes a quarter of an L2 cache
_BLOCK = 8 * ROWS  # rows of a that are worked through for one panel after the other: with the panel in the L2 cache
_FEW = 32  # rows of a for which copying b costs more than it saves


@jit
def loops(a, b, out):
    """The three loops in the order i, k, j, as they stand: LLVM makes of them what it can."""
    for i in range(a.shape[0]):
        out[i] = 0
        for k in range(a.shape[1]):
            x = a[i, k]
            for j in range(b.shape[1]):
                out[i, j] += x * b[k, j]


@jit(any_layout=True)
def pack_panels(b, panels):
    """Copy b (K, N) into panels (ceil(N / WIDTH), K, WIDTH), the last one filled up with zeros."""
    depth, columns = b.shape
    for p in range(panels.shape[0]):
        first = p * WIDTH
        count = min(WIDTH, columns - first)
        if count < WIDTH:
            panels[p] = 0
        if b.strides[1] == 4:
            source, target, step = flat(b), flat(panels), b.strides[0] // 4
            for k in range(depth):
                for j in range(0, count, LANES):
                    row = load_first(source, k * step + first + j, count - j)
                    store_first(target, (p * depth + k) * WIDTH + j, row, count - j)
        else:
            for start in range(0, depth, 16):  # blocks whose lines stay in the cache while they are turned
                for j in range(count):
                    for k in range(start, min(start + 16, depth)):
                        panels[p, k, j] = b[k, first + j]


@jit(any_layout=True)
def product_of_panels(a, b, in_place, panels, out, start, stop):
    """Compute the blocks start ... stop - 1 of _BLOCK rows of out = a @ b.

    The first `in_place` panels of b are read where they stand, the others from `panels`.
    """
    (length, depth), columns = a.shape, out.shape[1]
    row_step, k_step, c, ldc = a.strides[0] // 4, a.strides[1] // 4, flat(out), out.strides[0] // 4
    parts = max(1, -(-depth // _DEPTH))
    part = -(-depth // parts)
    copied = np.empty(ROWS * part, np.float32)
    for first in range(start * _BLOCK, min(stop * _BLOCK, length), _BLOCK):
        rows = min(_BLOCK, length - first)
        whole = rows // ROWS * ROWS  # rows that are read where they stand; those of the last tile are copied
        for k0 in range(0, max(depth, 1), max(part, 1)):
            count = min(part, depth - k0)
            _copy_rows(a, first + whole, rows - whole, k0, count, copied)
            for p in range(in_place + panels.shape[0]):
                width = min(WIDTH, columns - p * WIDTH)
                source, j, step = flat(panels), ((p - in_place) * depth + k0) * WIDTH, WIDTH
                if p < in_place:
                    step = b.strides[0] // 4
                    source, j = flat(b), p * WIDTH + k0 * step
                for i in range(0, whole, ROWS):
                    place = (first + i) * row_step + k0 * k_step
                    tile = _product(flat(a), place, row_step, k_step, source, j, step, count)
                    _write(tile, c, (first + i) * ldc + p * WIDTH, ldc, ROWS, width, k0 > 0)
                if whole < rows:
                    tile = _product(copied, 0, count, 1, source, j, step, count)
                    _write(tile, c, (first + whole) * ldc + p * WIDTH, ldc, rows - whole, width, k0 > 0)


@jit
def _product(a, i, row_step, k_step, b, j, b_step, count):
    """Multiply ROWS rows of a by a panel of b: `count` columns of a, each with one row of the panel."""
    tile = zeros(TILE)
    for k in range(count):
        tile = add_outer_product(tile, a, i + k * k_step, row_step, load_tile(b, j + k * b_step, VECTORS))
    return tile


@jit
def _copy_rows(a, first, rows, k0, count, copied):
    """Copy rows one behind the other, with rows of zeros up to a whole tile."""
    for i in range(rows):
        for k in range(count):
            copied[i * count + k] = a[first + i, k0 + k]
    copied[rows * count :] = 0


@jit
def _write(tile, c, place, stride, rows, width, add):
    """Store a tile, or add it to what is there; of a tile at the edge only the rows and columns that exist."""
    if add:
        tile = add_corner(tile, c, place, stride, rows, width, VECTORS)
    if rows == ROWS and width == WIDTH:
        store_tile(tile, c, place, stride, VECTORS)
    else:
        store_corner(tile, c, place, stride, rows, width, VECTORS)


@jit(any_layout=True)
def product_of_row(a, b, out, start, stop):
    """Compute the panels start ... stop - 1 of out = a @ b for a single row a: every number of b is used once."""
    source, step, columns = flat(b), b.strides[0] // 4, b.shape[1]
    c = flat(out)
    for p in range(start, stop):
        j = p * WIDTH
        if columns - j >= WIDTH:
            tile = zeros(VECTORS)
            for k in range(a.shape[1]):
                tile = add_outer_product(
                    tile, flat(a), k * (a.strides[1] // 4), 0, load_tile(source, k * step + j, VECTORS)
                )
            store_tile(tile, c, j, 0, VECTORS)
        else:
            for v in range(j, columns, LANES):
                result = broadcast(np.float32(0))
                for k in range(a.shape[1]):
                    result = fma(broadcast(a[0, k]), load_first(source, k * step + v, columns - v), result)
                store_first(c, v, result, columns - v)


@jit(any_layout=True)
def products_of_columns(a, b, out, start, stop):
    """Compute blocks of 4 columns of out = a @ b by dot products: those of b lie in one piece, as in x @ weight.T."""
    x, lda, y, ldb = flat(a), a.strides[0] // 4, flat(b), b.strides[1] // 4
    c, ldc = flat(out), out.strides[0] // 4
    (rows, depth), columns = a.shape, b.shape[1]
    whole = depth // LANES * LANES
    for j in range(4 * start, min(4 * stop, columns), 4):
        i = 0
        if j + 4 <= columns:
            while i + 4 <= rows:
                square = zeros(16)
                for k in range(0, whole, LANES):
                    square = add_dot_products(square, x, i * lda + k, lda, y, j * ldb + k, ldb, 4)
                store_totals(square, c, i * ldc + j, ldc, 4)
                i += 4
            while i < rows:
                line = zeros(4)
                for k in range(0, whole, LANES):
                    line = add_dot_products(line, x, i * lda + k, lda, y, j * ldb + k, ldb, 1)
                store_totals(line, c, i * ldc + j, ldc, 4)
                i += 1
        for r in range(i, rows):
            for n in range(j, columns):
                single = zeros(1)
                for k in range(0, whole, LANES):
                    single = add_dot_products(single, x, r * lda + k, lda, y, n * ldb + k, ldb, 1)
                store_totals(single, c, r * ldc + n, ldc, 1)
        for i in range(rows):
            for n in range(j, min(j + 4, columns)):
                for k in range(whole, depth):
                    out[i, n] += a[i, k] * b[k, n]


def matmul_simd(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Multiply float32 a (M, K) by b (K, N), of any strides, into out (M, N), whose rows lie in one piece."""
    (rows, depth), columns = a.shape, b.shape[1]
    out = np.empty((rows, columns), np.float32) if out is None else out
    rows_whole = b.strides[1] == 4 or columns == 1
    if rows <= _FEW and b.strides[0] == 4 and a.strides[1] == 4:
        parallel_for(products_of_columns, -(-columns // 4), a, b, out)
    elif rows == 1 and rows_whole:
        parallel_for(product_of_row, -(-columns // WIDTH), a, b, out)
    else:
        in_place = columns // WIDTH if rows_whole and (rows <= _FEW or columns == WIDTH) else 0
        panels = np.empty((-(-columns // WIDTH) - in_place, depth, WIDTH), np.float32)
        pack_panels(b[:, in_place * WIDTH :], panels)
        parallel_for(product_of_panels, -(-rows // _BLOCK), a, b, in_place, panels, out)
    return out


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply float32 a (..., M, K) by b (..., K, N), of any strides: (..., M, N); the axes in front broadcast."""
    batch = batch_shape(a, b)
    if not batch:
        return matmul_simd(a, b)
    if b.ndim == 2:  # one large product instead of many small ones
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return matmul_simd(rows, b).reshape(*a.shape[:-1], b.shape[1])
    out = np.empty((*batch, a.shape[-2], b.shape[-1]), np.float32)
    for at, left, right in pairs(a, b, batch):
        matmul_simd(left, right, out[at])
    return out


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Multiply x (R, in) by the transpose of weight (out, in), add bias (out,): (R, out)."""
    y = matmul(x, weight.T)
    if bias is not None:
        y += bias
    return y
