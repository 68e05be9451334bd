"""A transformer block's step in one call: weights are read where they lie, a row for each output, and once.

Outputs are dot products of eight rows of weights with a vector, or of four rows with four vectors: of more sequences at
once each number of a weight serves four.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.kernels import decoding as plain
from tinytorch.kernels.compiled.activation import gelu_in_place
from tinytorch.kernels.compiled.attention_few import few_queries
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.layer_norm import normalize
from tinytorch.kernels.compiled.simd import LANES
from tinytorch.kernels.compiled.tiles import add_dot_products, store_totals, zeros


@jit
def _project(x, rows, weight, bias, out):
    """Write x (rows, I) times the transpose of weight (O, I), plus bias (O,), to out (rows, O); all lie flat."""
    outputs = bias.size
    inputs = weight.size // outputs
    whole = inputs // LANES * LANES
    r = 0
    while r < rows:
        many = 4 if r + 4 <= rows else 1
        together = 4 if many == 4 else 8
        for o in range(0, outputs, together):
            if o + together > outputs:
                for n in range(o, outputs):
                    for b in range(r, r + many):
                        single = zeros(1)
                        for k in range(0, whole, LANES):
                            single = add_dot_products(single, x, b * inputs + k, 0, weight, n * inputs + k, 0, 1)
                        store_totals(single, out, b * outputs + n, 0, 1)
            elif many == 4:
                square = zeros(16)
                for k in range(0, whole, LANES):
                    square = add_dot_products(square, x, r * inputs + k, inputs, weight, o * inputs + k, inputs, 4)
                store_totals(square, out, r * outputs + o, outputs, 4)
            else:
                line = zeros(8)
                for k in range(0, whole, LANES):
                    line = add_dot_products(line, x, r * inputs + k, 0, weight, o * inputs + k, inputs, 1)
                store_totals(line, out, r * outputs + o, 0, 8)
        r += many
    for r in range(rows):
        for o in range(outputs):
            rest = bias[o]
            for k in range(whole, inputs):
                rest += x[r * inputs + k] * weight[o * inputs + k]
            out[r * outputs + o] += rest


@jit(any_layout=True)
def _attend(qkv, keys, values, heads, past, starts, seen):
    """Write the new keys and values to the cache, and let each head's query look at what its sequence holds."""
    batch, shared, _, depth = keys.shape
    group, scale = heads // shared, 1 / math.sqrt(depth)
    log_sum = np.empty(heads, np.float32)
    for b in range(batch):
        new = qkv[b]  # (H + 2 Hkv, d)
        for h in range(shared):
            for c in range(depth):
                keys[b, h, past, c] = new[heads + h, c]
                values[b, h, past, c] = new[heads + shared + h, c]
        q = new[:heads].reshape(1, shared, group, depth)
        out = seen[b].reshape(1, shared, group, depth)
        held = slice(starts[b], past + 1)
        few_queries(q, keys[b : b + 1, :, held], values[b : b + 1, :, held], scale, False, out, log_sum, 0, heads)


@jit
def _add(x, y):
    for i in range(x.size):
        x[i] += y[i]


@jit
def _step(x, rows, n1, n1_b, qkv_w, qkv_b, out_w, out_b, n2, n2_b, up, up_b, down, down_b, keys, values, heads, past,
          starts, eps):  # fmt: skip
    width, hidden = out_b.size, up_b.size
    normal, y, wide = np.empty(x.size, np.float32), np.empty(x.size, np.float32), np.empty(rows * hidden, np.float32)
    qkv = np.empty(rows * qkv_b.size, np.float32)
    normalize(x, n1, n1_b, eps, normal)
    _project(normal, rows, qkv_w, qkv_b, qkv)
    depth = width // heads
    split = qkv.reshape(rows, qkv_b.size // depth, depth)
    _attend(split, keys, values, heads, past, starts, normal.reshape(rows, heads, depth))
    _project(normal, rows, out_w, out_b, y)
    _add(x, y)
    normalize(x, n2, n2_b, eps, normal)
    _project(normal, rows, up, up_b, wide)
    gelu_in_place(wide)
    _project(wide, rows, down, down_b, y)
    _add(x, y)


def decoder_step(
    x: np.ndarray, weights: Any, keys: np.ndarray, values: np.ndarray, heads: int, past: int,
    starts: np.ndarray | None, eps: float,
) -> np.ndarray:  # fmt: skip
    """Do a block's step on a copy of x."""
    flat = [w.ravel() for w in weights]
    in_rows = keys.strides[3] == values.strides[3] == 4
    if not in_rows or not all(w.flags.aligned for w in flat):  # the weights came in a tuple, and were not looked at
        return plain.decoder_step.version("numpy")(x, weights, keys, values, heads, past, starts, eps)
    y = x.copy()
    starts = np.zeros(len(x), np.int64) if starts is None else starts
    _step(y.reshape(-1), len(y), *flat, keys, values, heads, past, starts, float(eps))
    return y
