"""The baselines that kernels are timed against: each operation as one plain scalar loop, frozen for ever.

This file never changes, and nothing in it uses the kernels of `tinytorch`: only so does a ratio of today mean the same
as one of next year, for a faster baseline would look like a slower kernel. `limits.json` holds the hash of it.

The loops are compiled, for against Python every kernel looks fast, vectors or no vectors; and they are scalar, since
LLVM is kept from making vectors of them. So their time hardly depends on what vectors the processor has.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba.core import config


def scalar(function):
    """Compile a function for what it is called with, one number at a time."""
    dispatcher = numba.njit(error_model="numpy")(function)
    compile_for = dispatcher._compile_for_args

    def compile_without_vectors(*args):
        before = config.LOOP_VECTORIZE, config.SLP_VECTORIZE
        config.LOOP_VECTORIZE = config.SLP_VECTORIZE = 0
        try:
            return compile_for(*args)
        finally:
            config.LOOP_VECTORIZE, config.SLP_VECTORIZE = before

    dispatcher._compile_for_args = compile_without_vectors
    return dispatcher


@scalar
def matmul(a, b, out):
    """Multiply a (M, K) by b (K, N) into out (M, N)."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            out[i, j] = total


@scalar
def conv(x, weight, bias, padding, out):
    """Convolve x (N, C, H, W) with weight (O, C, k, k), stride 1, and add bias (O,), into out (N, O, Ho, Wo)."""
    for n in range(out.shape[0]):
        for o in range(out.shape[1]):
            for y in range(out.shape[2]):
                for z in range(out.shape[3]):
                    total = bias[o]
                    for i in range(max(0, padding - y), min(weight.shape[2], x.shape[2] + padding - y)):
                        for j in range(max(0, padding - z), min(weight.shape[3], x.shape[3] + padding - z)):
                            for c in range(x.shape[1]):
                                total += weight[o, c, i, j] * x[n, c, y + i - padding, z + j - padding]
                    out[n, o, y, z] = total


@scalar
def attention(q, k, v, out):
    """Causal attention of q, k, v (H, T, d) into out (H, T, d)."""
    p, scale = np.empty(k.shape[1], np.float32), np.float32(1 / math.sqrt(q.shape[2]))
    for h in range(q.shape[0]):
        for i in range(q.shape[1]):
            top = np.float32(-math.inf)
            for j in range(i + 1):
                score = np.float32(0)
                for c in range(q.shape[2]):
                    score += q[h, i, c] * k[h, j, c]
                p[j] = score * scale
                top = max(top, p[j])
            total = np.float32(0)
            for j in range(i + 1):
                p[j] = math.exp(p[j] - top)
                total += p[j]
            for c in range(v.shape[2]):
                mean = np.float32(0)
                for j in range(i + 1):
                    mean += p[j] * v[h, j, c]
                out[h, i, c] = mean / total


@scalar
def int8_linear(codes, zero_point, weight, bias, multiplier, out):
    """codes uint8 (N, I), weight int8 (O, I), bias int32 (O,), multiplier float32 (O,) into out float32 (N, O).

    Sums are of float32 numbers: whole ones below 2^24, and so exact.
    """
    for n in range(codes.shape[0]):
        for o in range(weight.shape[0]):
            total = np.float32(bias[o])
            for i in range(codes.shape[1]):
                total += (np.float32(codes[n, i]) - zero_point) * np.float32(weight[o, i])
            out[n, o] = total * multiplier[o]


@scalar
def sparse_linear(x, values, indices, indptr, bias, out):
    """x (N, I) times the rows of a matrix in CSR, plus bias (O,), into out (N, O)."""
    for n in range(x.shape[0]):
        for o in range(len(indptr) - 1):
            total = bias[o]
            for at in range(indptr[o], indptr[o + 1]):
                total += values[at] * x[n, indices[at]]
            out[n, o] = total


@scalar
def softmax(x, out):
    """Softmax of each row of x (R, W) into out."""
    for r in range(x.shape[0]):
        top, total = np.float32(-math.inf), np.float32(0)
        for i in range(x.shape[1]):
            top = max(top, x[r, i])
        for i in range(x.shape[1]):
            out[r, i] = math.exp(x[r, i] - top)
            total += out[r, i]
        for i in range(x.shape[1]):
            out[r, i] /= total


@scalar
def gelu(x, out):
    """GELU, in the form with tanh, of the numbers of x (N,) into out."""
    for i in range(x.size):
        u = np.float32(0.7978845608028654) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
        out[i] = np.float32(0.5) * x[i] * (np.float32(1) + math.tanh(u))


@scalar
def layer_norm(x, weight, bias, eps, out):
    """Normalize each row of x (R, W), times weight (W,) plus bias (W,), into out."""
    width = np.float32(x.shape[1])
    for r in range(x.shape[0]):
        mean, squares = np.float32(0), np.float32(0)
        for i in range(x.shape[1]):
            mean += x[r, i]
        mean /= width
        for i in range(x.shape[1]):
            squares += (x[r, i] - mean) * (x[r, i] - mean)
        scale = np.float32(1 / math.sqrt(squares / width + np.float32(eps)))
        for i in range(x.shape[1]):
            out[r, i] = (x[r, i] - mean) * scale * weight[i] + bias[i]


@scalar
def linear(x, weight, bias, out):
    """x (I,) times the transpose of weight (O, I), plus bias (O,), into out (O,)."""
    for o in range(weight.shape[0]):
        total = bias[o]
        for i in range(weight.shape[1]):
            total += x[i] * weight[o, i]
        out[o] = total


@scalar
def one_query(q, keys, values, past, out):
    """Attention of q (heads * d,) to the positions 0 ... past of keys and values (heads, positions, d), into out."""
    depth, p = keys.shape[2], np.empty(past + 1, np.float32)
    scale = np.float32(1 / math.sqrt(depth))
    for h in range(keys.shape[0]):
        top, total = np.float32(-math.inf), np.float32(0)
        for j in range(past + 1):
            score = np.float32(0)
            for c in range(depth):
                score += q[h * depth + c] * keys[h, j, c]
            p[j] = score * scale
            top = max(top, p[j])
        for j in range(past + 1):
            p[j] = math.exp(p[j] - top)
            total += p[j]
        for c in range(depth):
            mean = np.float32(0)
            for j in range(past + 1):
                mean += p[j] * values[h, j, c]
            out[h * depth + c] = mean / total


def decoder_step(token, norms, biases, qkv, mix, up, down, head, keys, values, past, out):
    """One position of a GPT of L blocks, token (C,), through all of them: the scores of the next token into out (V,).

    Python calls the loops here: some fifty calls, which are a quarter of the time.

    Parameters
    ----------
    norms
        Weight and bias of layer norms (L + 1, 4, C): of a block's two; row L begins with those of the last one.
    biases
        Of a block's layers, one behind the other (L, 9 * C).
    qkv, mix, up, down
        A block's weights: queries with keys and values (L, 3 * C, C), (L, C, C), (L, 4 * C, C), (L, C, 4 * C).
    keys, values
        The cache (L, heads, positions, C / heads): position `past` is written, those before it are read.
    """
    width, heads = token.size, keys.shape[1]
    x, normed, added, seen = token.copy(), *np.empty((3, width), np.float32)
    mixed, hidden = np.empty(3 * width, np.float32), np.empty(4 * width, np.float32)
    for n in range(len(qkv)):
        layer_norm(x[None], norms[n, 0], norms[n, 1], 1e-5, normed[None])
        linear(normed, qkv[n], biases[n, : 3 * width], mixed)
        keys[n, :, past], values[n, :, past] = mixed[width:].reshape(2, heads, -1)
        one_query(mixed, keys[n], values[n], past, seen)
        linear(seen, mix[n], biases[n, 3 * width : 4 * width], added)
        x += added
        layer_norm(x[None], norms[n, 2], norms[n, 3], 1e-5, normed[None])
        linear(normed, up[n], biases[n, 4 * width : 8 * width], hidden)
        gelu(hidden, hidden)
        linear(hidden, down[n], biases[n, 8 * width :], added)
        x += added
    layer_norm(x[None], norms[-1, 0], norms[-1, 1], 1e-5, normed[None])
    linear(normed, head, np.zeros(len(head), np.float32), out)
