"""Attention in tiles of the table of scores, which stay in registers and in the L1 cache.

Scores are computed as columns: a vector holds one key's scores for LANES queries, so that the softmax of a query needs
no sum across a vector. A tile is 2 vectors of queries wide; its keys go by in blocks. With each block the largest
score so far may rise, and what was summed with the old one is scaled down.
Source: Dao, "FlashAttention-2" (2023), algorithms 1 and 2.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels import attention as plain
from tinytorch.kernels.compiled.attention_few import few_queries
from tinytorch.kernels.compiled.attention_tiles import (
    INF,
    KEYS,
    LOG2_E,
    QUERIES,
    WIDTH,
    hide,
    multiply,
    place,
    steps,
    turn,
)
from tinytorch.kernels.compiled.functions import exp2, maximum, scratch
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, flat, fma, load, load_first, store, total, where
from tinytorch.kernels.compiled.threads import parallel_for

_FEW = 8  # queries: fewer waste most of a tile's lanes


@jit
def _weigh(p, keys, scale, first, tops, sums, factors, out, rows, width):
    """Turn a block of scores (keys, WIDTH) into weights relative to the largest so far, and scale what came before."""
    for n in range(0, WIDTH, LANES):
        old = broadcast(np.float32(-INF)) if first else load(tops, n)
        top = old
        for r in range(n, n + keys * WIDTH, WIDTH):
            top = maximum(top, load(p, r))
        store(tops, n, top)
        top = where(top > -INF, top, broadcast(np.float32(0)))  # -inf - -inf would be NaN
        added = broadcast(np.float32(0))
        for r in range(n, n + keys * WIDTH, WIDTH):
            weight = exp2((load(p, r) - top) * scale)
            store(p, r, weight)
            added = added + weight
        factor = exp2((old - top) * scale)
        store(factors, n, factor)
        store(sums, n, added if first else fma(load(sums, n), factor, added))
    if not first:
        for r in range(rows):
            factor = broadcast(factors[r])
            for c in range(r * width, (r + 1) * width, LANES):
                store(out, c, factor * load(out, c))


@jit(any_layout=True)
def _forward(q, k, v, scale, is_causal, out, log_sum, start, stop):
    """Compute blocks start ... stop - 1 of QUERIES queries: FlashAttention-2, algorithm 1."""
    (_, heads, queries, depth), keys, width = q.shape, k.shape[2], v.shape[3]
    q_step, k_step, v_step, out_step = steps(q), steps(k), steps(v), steps(out)
    q, k, v, out, log_sum = flat(q), flat(k), flat(v), flat(out), flat(log_sum)
    p, sums, factors = scratch(KEYS * WIDTH), scratch(QUERIES), scratch(WIDTH)
    tops, columns, rows = scratch(QUERIES), scratch(QUERIES * depth), scratch(QUERIES * width)
    blocks = -(-queries // QUERIES)
    for index in range(start, stop):
        head, block = divmod(index, blocks)
        first = block * QUERIES
        count = min(QUERIES, queries - first)
        at = place(head, first, heads, q_step)
        for t in range(0, count, WIDTH):
            turn(q, at + t * q_step[2], q_step[2], count - t, depth, columns, t * depth)
        for key in range(0, keys, KEYS):
            k_place, v_place = place(head, key, heads, k_step), place(head, key, heads, v_step)
            for t in range(0, count, WIDTH):
                tile, ahead = min(WIDTH, count - t), key - (keys - queries + first + t)  # of the first query's last key
                seen = min(KEYS, keys - key)
                if is_causal:
                    seen = min(seen, tile - ahead)
                if seen <= 0:
                    continue
                k_rows, q_columns = (k_place, k_step[2], 1), (t * depth, WIDTH)
                multiply(k, k_rows, columns, q_columns, depth, p, (0, WIDTH), seen, WIDTH, False)
                if is_causal:
                    hide(p, ahead, seen)
                sofar = rows[t * width :]
                _weigh(p, seen, np.float32(scale * LOG2_E), key == 0, tops[t:], sums[t:], factors, sofar, tile, width)
                multiply(p, (0, 1, WIDTH), v, (v_place, v_step[2]), seen, sofar, (0, width), tile, width, key > 0)
        at = place(head, first, heads, out_step)
        for r in range(count):
            share = broadcast(np.float32(1) / sums[r])
            for c in range(0, width, LANES):
                store(out, at + r * out_step[2] + c, share * load(rows, r * width + c))
            log_sum[head * queries + first + r] = tops[r] * np.float32(scale) + math.log(sums[r])


@jit(any_layout=True)
def _backward(grad, q, k, v, out, log_sum, scale, is_causal, dq, dk, dv, start, stop):
    """Compute heads start ... stop - 1: FlashAttention-2, algorithm 2."""
    (_, heads, queries, depth), keys, width = q.shape, k.shape[2], v.shape[3]
    grad_step, q_step, k_step, v_step, out_step = steps(grad), steps(q), steps(k), steps(v), steps(out)
    dq_step, dk_step, dv_step = steps(dq), steps(dk), steps(dv)
    grad, q, k, v, out, log_sum = flat(grad), flat(q), flat(k), flat(v), flat(out), flat(log_sum)
    dq, dk, dv = flat(dq), flat(dk), flat(dv)
    p, ds, delta = scratch(KEYS * WIDTH), scratch(KEYS * WIDTH), scratch(QUERIES)
    q_columns, grad_columns = scratch(QUERIES * depth), scratch(QUERIES * width)
    for head in range(start, stop):
        for key in range(keys):
            _clear(dk, place(head, key, heads, dk_step), depth)
            _clear(dv, place(head, key, heads, dv_step), width)
        for first in range(0, queries, QUERIES):
            count = min(QUERIES, queries - first)
            i, g = place(head, first, heads, q_step), place(head, first, heads, grad_step)
            y, di = place(head, first, heads, out_step), place(head, first, heads, dq_step)
            for t in range(0, count, WIDTH):
                turn(q, i + t * q_step[2], q_step[2], count - t, depth, q_columns, t * depth)
                turn(grad, g + t * grad_step[2], grad_step[2], count - t, width, grad_columns, t * width)
            for r in range(count):
                dot = broadcast(np.float32(0))
                for c in range(0, width, LANES):
                    dot = fma(load(out, y + r * out_step[2] + c), load(grad, g + r * grad_step[2] + c), dot)
                delta[r] = total(dot)
                _clear(dq, di + r * dq_step[2], depth)
            for key in range(0, keys, KEYS):
                j, n = place(head, key, heads, k_step), place(head, key, heads, v_step)
                dj, dn = place(head, key, heads, dk_step), place(head, key, heads, dv_step)
                for t in range(0, count, WIDTH):
                    tile, ahead = min(WIDTH, count - t), key - (keys - queries + first + t)
                    seen = min(KEYS, keys - key)
                    if is_causal:
                        seen = min(seen, tile - ahead)
                    if seen <= 0:
                        continue
                    qt, gt, score = (i + t * q_step[2], q_step[2]), (g + t * grad_step[2], grad_step[2]), (0, WIDTH)
                    k_rows, v_rows = (j, k_step[2], 1), (n, v_step[2], 1)
                    multiply(k, k_rows, q_columns, (t * depth, WIDTH), depth, p, score, seen, WIDTH, False)
                    if is_causal:
                        hide(p, ahead, seen)
                    multiply(v, v_rows, grad_columns, (t * width, WIDTH), width, ds, score, seen, WIDTH, False)
                    _slope(p, ds, seen, scale, log_sum, head * queries + first + t, delta, t, tile)
                    multiply(p, (0, WIDTH, 1), grad, gt, tile, dv, (dn, dv_step[2]), seen, width, True)
                    multiply(ds, (0, WIDTH, 1), q, qt, tile, dk, (dj, dk_step[2]), seen, depth, True)
                    to = di + t * dq_step[2], dq_step[2]
                    multiply(ds, (0, 1, WIDTH), k, (j, k_step[2]), seen, dq, to, tile, depth, True)


@jit
def _clear(array, at, count):
    for c in range(at, at + count, LANES):
        store(array, c, broadcast(np.float32(0)))


@jit
def _slope(p, ds, keys, scale, log_sum, at, delta, t, rows):
    """Turn scores into weights, and the weights' gradients into those of q k: p (ds - delta) scale."""
    for n in range(0, WIDTH, LANES):
        shift = load_first(log_sum, at + n, rows - n) * np.float32(-LOG2_E)
        mean = load(delta, t + n) * np.float32(-scale)
        for r in range(n, n + keys * WIDTH, WIDTH):
            weight = exp2(fma(load(p, r), broadcast(np.float32(scale * LOG2_E)), shift))
            store(p, r, weight)
            store(ds, r, weight * fma(load(ds, r), broadcast(np.float32(scale)), mean))


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, is_causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compute attention without its table of scores; the result lies in memory as (B, Tq, H, dv)."""
    (batch, heads, queries, depth), width = q.shape, v.shape[3]
    if k.shape[2] == 0:
        raise ValueError("attention needs a key")
    few = queries < _FEW
    q, k, v = _readable(q, few), _readable(k, few), _readable(v, few)
    out = np.empty((batch, queries, heads, v.shape[3]), np.float32).transpose(0, 2, 1, 3)
    log_sum = np.empty((batch, heads, queries), np.float32)
    kernel, count = (few_queries, queries) if few else (_forward, -(-queries // QUERIES))
    parallel_for(kernel, batch * heads * count, q, k, v, 1.0 / math.sqrt(depth), is_causal, out, log_sum)
    return (out if out.shape[3] == width else out[..., :width].copy("K")), log_sum


def attention_grad(
    grad: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray, kept: np.ndarray, is_causal: bool,
    dq: np.ndarray, dk: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """Write the gradients, each tile of weights computed again from `kept`, the log sums of the forward pass."""
    if kept.ndim == 4:  # NumPy was the backend then
        plain.attention_grad.version("numpy")(grad, q, k, v, out, kept, is_causal, dq, dk, dv)
        return
    results = dq, dk, dv
    targets = [x if _is_readable(x) else np.empty(_readable(x).shape, np.float32) for x in results]
    sources = (_readable(x) for x in (grad, q, k, v, out))
    parallel_for(
        _backward, q.shape[0] * q.shape[1], *sources, np.ascontiguousarray(kept), 1.0 / math.sqrt(q.shape[3]),
        is_causal, *targets,
    )  # fmt: skip
    for result, target in zip(results, targets, strict=True):
        if target is not result:
            result[...] = target[..., : result.shape[3]]


def _is_readable(x: np.ndarray, any_width: bool = False) -> bool:
    """Tell whether rows are in one piece and, unless `any_width`, whole tiles wide."""
    return x.strides[3] == 4 and (any_width or x.shape[3] % WIDTH == 0)


def _readable(x: np.ndarray, any_width: bool = False) -> np.ndarray:
    """Return an array (B, H, T, d), or a copy of it with rows that kernels can read: filled up with zeros."""
    if _is_readable(x, any_width):
        return x
    if any_width:
        return np.ascontiguousarray(x)
    wide = np.zeros((*x.shape[:3], -(-x.shape[3] // WIDTH) * WIDTH), np.float32)
    wide[..., : x.shape[3]] = x
    return wide
