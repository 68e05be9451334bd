"""One step of a transformer block in generation: a single new position of each sequence, the others in a cache.

With one position at a time every product is one of a matrix with a vector, and the time is that of reading weights and
cache. What costs beside it are calls, so the compiled version does a whole block in one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tinytorch.kernels.activation import gelu, gelu_naive
from tinytorch.kernels.attention import attention_naive
from tinytorch.kernels.backend import kernel
from tinytorch.kernels.normalization import layer_norm, layer_norm_naive
from tinytorch.kernels.softmax import softmax


class BlockWeights(NamedTuple):
    """What a block has learned: weight and bias of each of its layers, in the order of their use; weights (out, in)."""

    norm1: np.ndarray
    norm1_bias: np.ndarray
    qkv: np.ndarray
    qkv_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    norm2: np.ndarray
    norm2_bias: np.ndarray
    up: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    down_bias: np.ndarray


@kernel
def decoder_step(
    x: np.ndarray, weights: BlockWeights, keys: np.ndarray, values: np.ndarray, heads: int, past: int,
    starts: np.ndarray | None, eps: float,
) -> np.ndarray:  # fmt: skip
    """Return x + attention(norm(x)), then that + mlp(norm(that)), and add a position to the cache.

    Parameters
    ----------
    x
        The new position of each sequence (B, C).
    keys, values
        The cache (B, Hkv, max_seq_len, d): what is new is written to position `past`.
    heads
        Of queries: a multiple of Hkv; neighbours share keys and values.
    past
        How many positions came before, below max_seq_len.
    starts
        Where each sequence begins (B,), or None: what comes before it is not looked at.
    eps
        Of both layer norms.
    """
    w, (batch, width), shared, depth = weights, x.shape, keys.shape[1], keys.shape[3]
    qkv = layer_norm(x, w.norm1, w.norm1_bias, eps)[0] @ w.qkv.T + w.qkv_bias
    split = qkv.reshape(batch, heads + 2 * shared, depth)  # (B, H + 2 Hkv, d)
    keys[:, :, past], values[:, :, past] = split[:, heads : heads + shared], split[:, heads + shared :]
    q = split[:, :heads].reshape(batch, shared, heads // shared, depth) * x.dtype.type(1 / math.sqrt(depth))
    scores = q @ keys[:, :, : past + 1].swapaxes(-1, -2)  # (B, Hkv, H / Hkv, past + 1)
    if starts is not None:
        scores[np.broadcast_to((np.arange(past + 1) < starts[:, None])[:, None, None], scores.shape)] = -np.inf
    seen = softmax(scores) @ values[:, :, : past + 1]
    x = x + (seen.reshape(batch, width) @ w.out.T + w.out_bias)
    hidden = gelu(layer_norm(x, w.norm2, w.norm2_bias, eps)[0] @ w.up.T + w.up_bias)
    return x + (hidden @ w.down.T + w.down_bias)


@decoder_step.naive
def decoder_step_naive(
    x: np.ndarray, weights: BlockWeights, keys: np.ndarray, values: np.ndarray, heads: int, past: int,
    starts: np.ndarray | None, eps: float,
) -> np.ndarray:  # fmt: skip
    """Work number by number, on one sequence after the other."""
    w, shared, out = weights, keys.shape[1], np.empty_like(x)
    for b in range(len(x)):
        qkv = _linear(layer_norm_naive(x[b : b + 1], w.norm1, w.norm1_bias, eps)[0], w.qkv, w.qkv_bias)
        split = qkv.reshape(heads + 2 * shared, -1)
        keys[b, :, past], values[b, :, past] = split[heads : heads + shared], split[heads + shared :]
        first = 0 if starts is None else int(starts[b])
        seen = np.empty((1, heads, split.shape[1]), np.float32)
        for h in range(heads):
            k, v = (cache[b, h * shared // heads, first : past + 1][None, None] for cache in (keys, values))
            seen[0, h] = attention_naive(split[h][None, None, None], k, v, False)[0][0, 0, 0]
        y = x[b : b + 1] + _linear(seen.reshape(1, -1), w.out, w.out_bias)
        hidden = gelu_naive(_linear(layer_norm_naive(y, w.norm2, w.norm2_bias, eps)[0], w.up, w.up_bias))
        out[b] = (y + _linear(hidden, w.down, w.down_bias))[0]
    return out


def _linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    out = np.empty((1, len(weight)), np.float32)
    for o in range(len(weight)):
        total = float(bias[o])
        for i in range(weight.shape[1]):
            total += float(x[0, i]) * float(weight[o, i])
        out[0, o] = total
    return out
