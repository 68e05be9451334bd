"""A GPT's step in one call: weights are read where they lie, a row for each output, and once.

Outputs are dot products of eight rows of weights with a vector, or of four rows with four vectors: of more sequences at
once each number of a weight serves four. Weights in whole numbers are multiplied as in `dynamic.py`, those without
their zeros as in `kept.py`; which is which stands in a table, so that a model may have some of each.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from tinytorch.kernels import decoding as plain
from tinytorch.kernels.compiled.activation import gelu_in_place
from tinytorch.kernels.compiled.attention_few import few_queries
from tinytorch.kernels.compiled.dynamic import memory_for, panel_width, path_index, product
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.kept import CAN_PICK, multiplier
from tinytorch.kernels.compiled.layer_norm import normalize
from tinytorch.kernels.compiled.simd import LANES, array_at, flat
from tinytorch.kernels.compiled.tiles import add_dot_products, store_totals, zeros
from tinytorch.kernels.decoding import CODES, KEPT
from tinytorch.kernels.dot import current_dot_path

_NO_CODE = "numbers within the model became NaN or infinite in this step: they have no code"


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
            out[r * outputs + o] += bias[o]
        if whole < inputs:
            for o in range(outputs):
                for k in range(whole, inputs):
                    out[r * outputs + o] += x[r * inputs + k] * weight[o * inputs + k]


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


@cache
def _codes(path: int):
    multiply, width = product(path), panel_width(path)

    @jit
    def codes(x, rows, inputs, packed, bias, outputs, out):
        memory = memory_for(rows, inputs, outputs, width)
        return multiply(x, 0, rows, inputs, packed, bias, outputs, memory, out)

    return codes


@jit
def _none(x, rows, inputs, packed, bias, outputs, out):
    return False


@cache
def stepper(path: int | None):
    """Compile a step; `path` is that of weights in whole numbers, None if there are none."""
    codes, kept = _none if path is None else _codes(path), multiplier() if CAN_PICK else _none

    @jit
    def linear(x, rows, inputs, weights, at, outputs, out):
        """Multiply with the weights and add the bias whose addresses stand at weights[at] and behind.

        Return whether a number had no code.
        """
        bias, form = array_at(weights[at + 1, 0], outputs), weights[at, 1]
        if form == CODES:
            return codes(x, rows, inputs, weights[at, 0], bias, outputs, out)
        if form == KEPT:
            kept(x, rows, inputs, weights[at, 0], bias, outputs, out)
        else:
            _project(x, rows, array_at(weights[at, 0], outputs * inputs), bias, out)
        return False

    @jit
    def block_step(x, rows, weights, width, hidden, keys, values, heads, past, starts, eps):
        """Do a block's step on x (rows, width), which lies flat; `weights` tells where its twelve arrays lie."""
        depth, shared = keys.shape[3], keys.shape[1]
        lines = (heads + 2 * shared) * depth
        normal, y = np.empty(x.size, np.float32), np.empty(x.size, np.float32)
        wide, qkv = np.empty(rows * hidden, np.float32), np.empty(rows * lines, np.float32)
        normalize(x, array_at(weights[0, 0], width), array_at(weights[1, 0], width), eps, normal)
        nan = linear(normal, rows, width, weights, 2, lines, qkv)
        split = qkv.reshape(rows, heads + 2 * shared, depth)
        _attend(split, keys, values, heads, past, starts, normal.reshape(rows, heads, depth))
        nan |= linear(normal, rows, width, weights, 4, width, y)
        _add(x, y)
        normalize(x, array_at(weights[6, 0], width), array_at(weights[7, 0], width), eps, normal)
        nan |= linear(normal, rows, width, weights, 8, hidden, wide)
        gelu_in_place(wide)
        nan |= linear(wide, rows, hidden, weights, 10, width, y)
        _add(x, y)
        return nan

    @jit(any_layout=True)
    def step(tokens, ids, weights, hidden, keys, values, heads, past, starts, eps, out):
        rows, width, last = ids.size, tokens.shape[1], len(weights) - 5
        x, normal, nan = np.empty(rows * width, np.float32), np.empty(rows * width, np.float32), False
        for b in range(rows):
            place = array_at(weights[last, 0], (past + 1) * width)
            for c in range(width):
                x[b * width + c] = tokens[ids[b], c] + place[(past - starts[b]) * width + c]
        for layer in range(keys.shape[0]):
            block = weights[12 * layer : 12 * layer + 12]
            nan |= block_step(x, rows, block, width, hidden, keys[layer], values[layer], heads, past, starts, eps)
        normalize(x, array_at(weights[last + 1, 0], width), array_at(weights[last + 2, 0], width), eps, normal)
        return nan | linear(normal, rows, width, weights, last + 3, out.shape[1], flat(out))

    return step


def decoder_step(
    tokens: np.ndarray, ids: np.ndarray, weights: Any, keys: np.ndarray, values: np.ndarray, heads: int, past: int,
    starts: np.ndarray, eps: float,
) -> np.ndarray:  # fmt: skip
    """Do a step where the weights lie."""
    in_rows = keys.strides[4] == values.strides[4] == 4
    if not in_rows or weights.addresses is None:
        return plain.decoder_step.version("numpy")(tokens, ids, weights, keys, values, heads, past, starts, eps)
    out = np.empty((len(ids), weights.vocabulary), np.float32)
    path = current_dot_path() if weights.coded else None
    hidden, run = len(weights.blocks[0].up_bias), stepper(None if path is None else path_index(path))
    if run(tokens, ids, weights.table(path), hidden, keys, values, heads, past, starts, float(eps), out):
        raise ValueError(_NO_CODE)
    return out
