"""One step of a GPT in generation: a single new position of each sequence, the others in a cache.

With one position at a time every product is one of a matrix with a vector, and the time is that of reading weights and
cache. What costs beside it are calls, so the compiled version does the whole model in one.
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from tinytorch.kernels import dynamic, sparse
from tinytorch.kernels.activation import gelu, gelu_naive
from tinytorch.kernels.attention import attention_naive
from tinytorch.kernels.backend import kernel
from tinytorch.kernels.dynamic import dynamic_linear, dynamic_linear_naive
from tinytorch.kernels.normalization import layer_norm, layer_norm_naive
from tinytorch.kernels.softmax import softmax

FLOATS, CODES, KEPT = range(3)  # the forms of a weight


class Coded(NamedTuple):
    """Weights in whole numbers (out, in), with a scale for each output, and the product with them: see `dynamic.py`."""

    weight: np.ndarray
    scale: np.ndarray
    product: dynamic.Product


class Kept(NamedTuple):
    """Weights without their zeros (out, in), in CSR, and the product with them: see `sparse.py`."""

    values: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    product: sparse.Product


Weight = np.ndarray | Coded | Kept


class BlockWeights(NamedTuple):
    """What a block has learned: weight and bias of each of its layers, in the order of their use; weights (out, in).

    Those of the four linear layers may be `Coded` or `Kept`, each as it likes.
    """

    norm1: np.ndarray
    norm1_bias: np.ndarray
    qkv: np.ndarray | Coded | Kept
    qkv_bias: np.ndarray
    out: np.ndarray | Coded | Kept
    out_bias: np.ndarray
    norm2: np.ndarray
    norm2_bias: np.ndarray
    up: np.ndarray | Coded | Kept
    up_bias: np.ndarray
    down: np.ndarray | Coded | Kept
    down_bias: np.ndarray


class _Weights(NamedTuple):
    blocks: tuple[BlockWeights, ...]
    positions: np.ndarray
    norm: np.ndarray
    norm_bias: np.ndarray
    head: np.ndarray | Coded | Kept


class DecoderWeights(_Weights):
    """What a GPT has learned, but for its tokens: blocks, positions (max_seq_len, C), last norm, and head (V, C).

    The head may be `Coded` or `Kept`.
    """

    def weights(self) -> list[Weight]:
        """Return all of them, block after block."""
        return [w for block in self.blocks for w in block] + list(self[1:])

    @cached_property
    def vocabulary(self) -> int:
        """The number of tokens that are scored."""
        return shape_of(self.head)[0]

    @cached_property
    def coded(self) -> bool:
        """Whether any of them is `Coded`."""
        return any(isinstance(w, Coded) for w in self.weights())

    @cached_property
    def addresses(self) -> np.ndarray | None:
        """Where each array lies, int64, 0 for codes and what is kept, then zeros for the head's bias.

        None if code cannot go by that: it can if arrays are float32, in one piece, and blocks are of the same sizes.
        """
        sizes = {tuple(shape_of(w) for w in block) for block in self.blocks}
        arrays = [w for w in self.weights() if isinstance(w, np.ndarray)]
        whole = all(w.dtype == np.float32 and w.flags.c_contiguous and w.flags.aligned for w in arrays)
        if not whole or len(sizes) != 1:
            return None
        everything = [*self.weights(), self.no_bias]
        return np.array([w.ctypes.data if isinstance(w, np.ndarray) else 0 for w in everything])

    @cached_property
    def no_bias(self) -> np.ndarray:
        """What is added to the scores, for code that adds a bias everywhere."""
        return np.zeros(self.vocabulary, np.float32)

    @cached_property
    def _tables(self) -> dict[str | None, np.ndarray]:
        return {}

    def table(self, path: str | None) -> np.ndarray:
        """Return where the compiled step finds each of `addresses`, and in which form: int64 (places, 2).

        Codes are made ready for a path of `dot.py`, None if there are none.
        """
        if path not in self._tables:
            assert self.addresses is not None
            found = np.stack([self.addresses, np.full(len(self.addresses), FLOATS)], axis=1)
            for place, weight in enumerate(self.weights()):
                if isinstance(weight, Coded):
                    assert path is not None
                    found[place] = weight.product.packed(path).ctypes.data, CODES
                elif isinstance(weight, Kept):
                    ready, form = weight.product.packed, KEPT
                    if ready is None:
                        ready, form = weight.product.dense, FLOATS
                    found[place] = ready.ctypes.data, form
            self._tables[path] = found
        return self._tables[path]

    def __reduce__(self) -> tuple[Any, ...]:
        return DecoderWeights, tuple(self)  # a copy lies elsewhere


def shape_of(weight: Weight) -> tuple[int, ...]:
    """Return the shape of a weight, whatever form it has."""
    if isinstance(weight, Kept):
        return weight.product.rows.outputs, weight.product.rows.columns
    shape: tuple[int, ...] = weight.weight.shape if isinstance(weight, Coded) else weight.shape
    return shape


def _product(x: np.ndarray, weight: Weight, bias: np.ndarray | None = None) -> np.ndarray:
    if isinstance(weight, Coded):
        return np.asarray(dynamic_linear(x, weight.product, bias))
    y = weight.product.network(x) if isinstance(weight, Kept) else x @ weight.T
    return y if bias is None else y + bias


@partial(kernel, indices=True)
def decoder_step(
    tokens: np.ndarray, ids: np.ndarray, weights: DecoderWeights, keys: np.ndarray, values: np.ndarray, heads: int,
    past: int, starts: np.ndarray, eps: float,
) -> np.ndarray:  # fmt: skip
    """Return the scores (B, V) of each sequence's next token, and add a position to the cache.

    Parameters
    ----------
    tokens
        The embedding of each token (V, C).
    ids
        The new token of each sequence (B,).
    keys, values
        The cache (layers, B, Hkv, max_seq_len, d): what is new is written to position `past`.
    heads
        Of queries: a multiple of Hkv; neighbours share keys and values.
    past
        How many positions came before, below max_seq_len.
    starts
        Where each sequence begins (B,), 0 to `past`: what comes before it is not looked at.
    eps
        Of all layer norms.
    """
    x = tokens[ids] + weights.positions[past - starts]
    for block, k, v in zip(weights.blocks, keys, values, strict=True):
        x = block_step(x, block, k, v, heads, past, starts, eps)
    return _product(layer_norm(x, weights.norm, weights.norm_bias, eps)[0], weights.head)


def block_step(
    x: np.ndarray, weights: BlockWeights, keys: np.ndarray, values: np.ndarray, heads: int, past: int,
    starts: np.ndarray, eps: float,
) -> np.ndarray:  # fmt: skip
    """Return x + attention(norm(x)), then that + mlp(norm(that)), for x (B, C) and a layer's part of the cache."""
    w, (batch, width), shared, depth = weights, x.shape, keys.shape[1], keys.shape[3]
    qkv = _product(layer_norm(x, w.norm1, w.norm1_bias, eps)[0], w.qkv, w.qkv_bias)
    split = qkv.reshape(batch, heads + 2 * shared, depth)  # (B, H + 2 Hkv, d)
    keys[:, :, past], values[:, :, past] = split[:, heads : heads + shared], split[:, heads + shared :]
    q = split[:, :heads].reshape(batch, shared, heads // shared, depth) * x.dtype.type(1 / math.sqrt(depth))
    scores = q @ keys[:, :, : past + 1].swapaxes(-1, -2)  # (B, Hkv, H / Hkv, past + 1)
    if starts.any():
        scores[np.broadcast_to((np.arange(past + 1) < starts[:, None])[:, None, None], scores.shape)] = -np.inf
    seen = softmax(scores) @ values[:, :, : past + 1]
    x = x + _product(seen.reshape(batch, width), w.out, w.out_bias)
    hidden = gelu(_product(layer_norm(x, w.norm2, w.norm2_bias, eps)[0], w.up, w.up_bias))
    return x + _product(hidden, w.down, w.down_bias)


@decoder_step.naive
def decoder_step_naive(
    tokens: np.ndarray, ids: np.ndarray, weights: DecoderWeights, keys: np.ndarray, values: np.ndarray, heads: int,
    past: int, starts: np.ndarray, eps: float,
) -> np.ndarray:  # fmt: skip
    """Work number by number, on one sequence after the other."""
    out = np.empty((len(ids), weights.vocabulary), np.float32)
    for b, (token, start) in enumerate(zip(ids.tolist(), starts.tolist(), strict=True)):
        x = tokens[token] + weights.positions[past - start]
        for block, k, v in zip(weights.blocks, keys, values, strict=True):
            x = _block_step(x[None], block, k[b : b + 1], v[b : b + 1], heads, past, start, eps)
        x = layer_norm_naive(x[None], weights.norm, weights.norm_bias, eps)[0]
        out[b] = _linear(x, weights.head, np.zeros(weights.vocabulary, np.float32))[0]
    return out


def _block_step(
    x: np.ndarray, w: BlockWeights, keys: np.ndarray, values: np.ndarray, heads: int, past: int, start: int, eps: float
) -> np.ndarray:
    shared = keys.shape[1]
    qkv = _linear(layer_norm_naive(x, w.norm1, w.norm1_bias, eps)[0], w.qkv, w.qkv_bias)
    split = qkv.reshape(heads + 2 * shared, -1)
    keys[0, :, past], values[0, :, past] = split[heads : heads + shared], split[heads + shared :]
    seen = np.empty((1, heads, split.shape[1]), np.float32)
    for h in range(heads):
        k, v = (cache[0, h * shared // heads, start : past + 1][None, None] for cache in (keys, values))
        seen[0, h] = attention_naive(split[h][None, None, None], k, v, False)[0][0, 0, 0]
    y = x + _linear(seen.reshape(1, -1), w.out, w.out_bias)
    hidden = gelu_naive(_linear(layer_norm_naive(y, w.norm2, w.norm2_bias, eps)[0], w.up, w.up_bias))
    out: np.ndarray = (y + _linear(hidden, w.down, w.down_bias))[0]
    return out


def _linear(x: np.ndarray, weight: Weight, bias: np.ndarray) -> np.ndarray:
    if isinstance(weight, Coded):
        return dynamic_linear_naive(x, weight.product, bias)
    outputs, inputs = shape_of(weight)
    out = np.empty((1, outputs), np.float32)
    for o in range(outputs):
        total = float(bias[o])
        if isinstance(weight, Kept):
            for n in range(weight.indptr[o], weight.indptr[o + 1]):
                total += float(x[0, weight.indices[n]]) * float(weight.values[n])
        else:
            for i in range(inputs):
                total += float(x[0, i]) * float(weight[o, i])
        out[0, o] = total
    return out
