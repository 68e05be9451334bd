"""Attention of a few queries to many keys, as in generation: one query at a time, each key read where it lies."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.attention_tiles import INF, KEYS, LOG2_E, place, steps
from tinytorch.kernels.compiled.functions import exp2, largest, load_or, scratch
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, flat, fma, load, load_first, store, store_first, total
from tinytorch.kernels.compiled.tiles import add_dot_products, store_totals, zeros


@jit(any_layout=True)
def few_queries(q, k, v, scale, is_causal, out, log_sum, start, stop):
    """Compute one query after the other: each key and value is read where it lies, and once."""
    (_, heads, queries, depth), keys, width = q.shape, k.shape[2], v.shape[3]
    q_step, k_step, v_step, out_step = steps(q), steps(k), steps(v), steps(out)
    q, k, v, out, log_sum = flat(q), flat(k), flat(v), flat(out), flat(log_sum)
    p, rows = scratch(KEYS + LANES), scratch(width + LANES)
    whole = depth // LANES * LANES
    for index in range(start, stop):
        head, query = divmod(index, queries)
        i = place(head, query, heads, q_step)
        seen = keys - queries + query + 1 if is_causal else keys
        top, summed = np.float32(-INF), np.float32(0)
        rows[:] = 0
        for key in range(0, seen, KEYS):
            count = min(KEYS, seen - key)
            j = place(head, key, heads, k_step)
            for r in range(0, count // 4 * 4, 4):
                line = zeros(4)
                for c in range(0, whole, LANES):
                    line = add_dot_products(line, q, i + c, 0, k, j + r * k_step[2] + c, k_step[2], 1)
                store_totals(line, p, r, 0, 4)
            for r in range(count // 4 * 4, count):
                line = zeros(1)
                for c in range(0, whole, LANES):
                    line = add_dot_products(line, q, i + c, 0, k, j + r * k_step[2] + c, 0, 1)
                store_totals(line, p, r, 0, 1)
            if whole < depth:
                rest = load_first(q, i + whole, depth - whole)
                for r in range(count):  # no k[...]: for Numba a place below 0 is one counted from the end
                    p[r] += total(rest * load_first(k, j + r * k_step[2] + whole, depth - whole))
            old = top
            for r in range(0, count, LANES):
                top = max(top, largest(load_or(p, r, count - r, -INF)))
            base = top if top > -INF else np.float32(0)  # -inf - -inf would be NaN
            added = broadcast(np.float32(0))
            for r in range(0, count, LANES):
                weight = exp2((load_or(p, r, count - r, -INF) - base) * np.float32(scale * LOG2_E))
                store(p, r, weight)
                added = added + weight
            factor = np.float32(2 ** ((old - base) * scale * LOG2_E))
            summed = summed * factor + total(added)
            j = place(head, key, heads, v_step)
            for c in range(0, width, LANES):
                even, odd = load(rows, c) * factor, broadcast(np.float32(0))
                for r in range(0, count - 1, 2):
                    at = j + r * v_step[2] + c
                    even = fma(broadcast(p[r]), load_first(v, at, width - c), even)
                    odd = fma(broadcast(p[r + 1]), load_first(v, at + v_step[2], width - c), odd)
                if count % 2:
                    at = j + (count - 1) * v_step[2] + c
                    even = fma(broadcast(p[count - 1]), load_first(v, at, width - c), even)
                store(rows, c, even + odd)
        target = place(head, query, heads, out_step)
        for c in range(0, width, LANES):
            store_first(out, target + c, load(rows, c) * (np.float32(1) / summed), width - c)
        log_sum[index] = top * np.float32(scale) + math.log(summed)
