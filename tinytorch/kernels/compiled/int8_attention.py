"""Attention to codes: a few of them at a time become floats, in memory that stays in the L1 cache."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.compiled.attention_few import add_values, score
from tinytorch.kernels.compiled.functions import exp2, largest, load_or, scratch
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, load_first, store_first
from tinytorch.kernels.compiled.threads import parallel_for

_KEYS = 64  # at a time: of 32 numbers each they take 8 KB as floats
_LOG2_E = math.log2(math.e)


@jit(any_layout=True)
def _widen(codes, b, h, first, count, rows):
    """Write `count` vectors of codes as floats, one behind the other."""
    depth = codes.shape[3]
    for t in range(count):
        for i in range(depth):
            rows[t * depth + i] = np.float32(codes[b, h, first + t, i])


@jit(any_layout=True)
def _attend(q, k, k_scale, v, v_scale, out, start, stop):
    _, heads, depth = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    rows, p = scratch(_KEYS * depth + LANES), scratch(keys + 2 * LANES)
    query, sums = scratch(depth + LANES), scratch(depth + LANES)
    factor = np.float32(_LOG2_E / math.sqrt(depth))
    for index in range(start, stop):
        b, h = divmod(index, heads)
        for i in range(depth):
            query[i] = q[b, h, i]
        top = np.float32(-np.inf)
        for first in range(0, keys, _KEYS):
            count = min(_KEYS, keys - first)
            _widen(k, b, h // group, first, count, rows)
            score(query, 0, rows, 0, depth, count, depth, p[first:])
            for t in range(first, first + count):
                p[t] *= k_scale[b, t]
        for t in range(0, keys, LANES):
            top = max(top, largest(load_or(p, t, keys - t, -np.inf)))
        total = np.float32(0)
        for t in range(0, keys, LANES):
            store_first(p, t, exp2((load_first(p, t, keys - t) - top) * factor), keys - t)
        for t in range(keys):
            total += p[t]
            p[t] *= v_scale[b, t]
        sums[:] = 0
        for first in range(0, keys, _KEYS):
            count = min(_KEYS, keys - first)
            _widen(v, b, h // group, first, count, rows)
            add_values(p[first:], rows, 0, depth, count, depth, np.float32(1), sums)
        for i in range(depth):
            out[b, h, i] = sums[i] / total


def attend_codes(q: np.ndarray, k: np.ndarray, k_scale: np.ndarray, v: np.ndarray, v_scale: np.ndarray) -> np.ndarray:
    """Do one head after the other."""
    out = np.empty(q.shape, np.float32)
    parallel_for(_attend, q.shape[0] * q.shape[1], q, k, k_scale, v, v_scale, out)
    return out
