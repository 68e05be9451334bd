"""Attention of a few queries to many keys, as in generation: one query at a time, each key read where it lies."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.attention_tiles import INF, LOG2_E, WIDTH, place, steps
from tinytorch.kernels.compiled.functions import exp2, largest, load_or, scratch
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, flat, fma, load, load_first, store, store_first, total
from tinytorch.kernels.compiled.tiles import add_dot_products, add_outer_product, load_tile, store_totals, zeros

_KEYS = 2048  # at a time: their weights take 8 KB, and a memory that is read in longer pieces is read faster


@jit
def score(q, i, k, j, step, count, depth, p):
    """Write the products of a query (depth,) with `count` keys to p."""
    whole, fours = depth // LANES * LANES, count // 4 * 4
    for r in range(0, fours, 4):
        line = zeros(4)
        for c in range(0, whole, LANES):
            line = add_dot_products(line, q, i + c, 0, k, j + r * step + c, step, 1)
        store_totals(line, p, r, 0, 4)
    for r in range(fours, count):
        line = zeros(1)
        for c in range(0, whole, LANES):
            line = add_dot_products(line, q, i + c, 0, k, j + r * step + c, 0, 1)
        store_totals(line, p, r, 0, 1)
    if whole < depth:
        rest = load_first(q, i + whole, depth - whole)
        for r in range(count):  # no k[...]: for Numba a place below 0 is one counted from the end
            p[r] += total(rest * load_first(k, j + r * step + whole, depth - whole))


@jit
def _weigh(p, count, top, scale):
    """Turn scores into weights relative to `top`; return their sum."""
    added = broadcast(np.float32(0))
    for r in range(0, count, LANES):
        weight = exp2((load_or(p, r, count - r, -INF) - top) * scale)
        store(p, r, weight)
        added = added + weight
    return total(added)


@jit
def add_values(p, v, j, step, count, width, factor, out):
    """Scale out (width,) and add `count` values to it, each as often as its weight says."""
    pairs = width // WIDTH * WIDTH
    for c in range(0, width, LANES):
        store(out, c, load(out, c) * factor)
    for c in range(0, pairs, WIDTH):
        even, odd = load_tile(out, c, 2), zeros(2)  # two sums: one has to wait for itself
        for r in range(0, count - 1, 2):
            even = add_outer_product(even, p, r, 0, load_tile(v, j + r * step + c, 2))
            odd = add_outer_product(odd, p, r + 1, 0, load_tile(v, j + (r + 1) * step + c, 2))
        if count % 2:
            even = add_outer_product(even, p, count - 1, 0, load_tile(v, j + (count - 1) * step + c, 2))
        store(out, c, even[0] + odd[0])
        store(out, c + LANES, even[1] + odd[1])
    for c in range(pairs, width, LANES):
        result = load(out, c)
        for r in range(count):
            result = fma(broadcast(p[r]), load_first(v, j + r * step + c, width - c), result)
        store(out, c, result)


@jit(any_layout=True)
def few_queries(q, k, v, scale, is_causal, out, log_sum, start, stop):
    """Compute one query after the other: each key and value is read where it lies, and once."""
    (_, heads, queries, depth), keys, width = q.shape, k.shape[2], v.shape[3]
    q_step, k_step, v_step, out_step = steps(q), steps(k), steps(v), steps(out)
    q, k, v, out, log_sum = flat(q), flat(k), flat(v), flat(out), flat(log_sum)
    p, row, factor = scratch(_KEYS + LANES), scratch(width + LANES), np.float32(scale * LOG2_E)
    for index in range(start, stop):
        head, query = divmod(index, queries)
        seen = keys - queries + query + 1 if is_causal else keys
        top, summed = np.float32(-INF), np.float32(0)
        row[:] = 0
        for key in range(0, seen, _KEYS):
            count = min(_KEYS, seen - key)
            i, j = place(head, query, heads, q_step), place(head, key, heads, k_step)
            score(q, i, k, j, k_step[2], count, depth, p)
            old = top
            for r in range(0, count, LANES):
                top = max(top, largest(load_or(p, r, count - r, -INF)))
            base = top if top > -INF else np.float32(0)  # -inf - -inf would be NaN
            shrink = np.float32(2 ** ((old - base) * factor))
            summed = summed * shrink + _weigh(p, count, base, factor)
            add_values(p, v, place(head, key, heads, v_step), v_step[2], count, width, shrink, row)
        target = place(head, query, heads, out_step)
        for c in range(0, width, LANES):
            store_first(out, target + c, load(row, c) * (np.float32(1) / summed), width - c)
        log_sum[index] = top * np.float32(scale) + math.log(summed)
