"""Multi-head self-attention, and the keys and values that it can remember."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function, is_grad_enabled
from tinytorch.nn import init
from tinytorch.nn.linear import Linear
from tinytorch.nn.module import Module
from tinytorch.ops.attention import ScaledDotProductAttention, SelfAttention
from tinytorch.tensor import Tensor


class PastKeyValue:
    """The keys and values of one attention layer for the positions it has seen, in memory allocated once.

    Parameters
    ----------
    batch_size, num_kv_heads, max_seq_len, head_dim
        `keys` and `values` are float32 arrays of shape (batch_size, num_kv_heads, max_seq_len, head_dim).
    memory
        These two arrays, where they are parts of larger ones; they are allocated if it is left out.

    Raises
    ------
    ValueError
        If a size is below 1.
    """

    def __init__(
        self,
        batch_size: int,
        num_kv_heads: int,
        max_seq_len: int,
        head_dim: int,
        memory: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        shape = (batch_size, num_kv_heads, max_seq_len, head_dim)
        check_sizes(shape)
        keys, values = memory or (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        self.keys: np.ndarray = keys
        self.values: np.ndarray = values
        self.length = 0
        self.starts: np.ndarray | None = None  # where each sequence begins, if not at 0: what comes before is padding

    @property
    def shape(self) -> tuple[int, ...]:
        """The allocated (batch_size, num_kv_heads, max_seq_len, head_dim)."""
        return self.keys.shape

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values together."""
        return self.keys.nbytes + self.values.nbytes

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError that names both shapes if keys (B, H, T, d) of `shape` do not fit behind those held."""
        check_fits(shape, self.shape, self.length)

    def append(self, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add the keys and values (B, H, T, d) of T new positions; return views of all: (B, H, length, d).

        Raises
        ------
        ValueError
            If they do not fit (see `check`); the cache stays as it was.
        """
        self.check(key.shape)
        if value.shape != key.shape:
            raise ValueError(f"keys have shape {key.shape}, values {value.shape}")
        end = self.length + key.shape[2]
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reset(self) -> None:
        """Forget all positions; the memory stays allocated."""
        self.length, self.starts = 0, None


def check_sizes(shape: tuple[int, ...]) -> None:
    """Raise a ValueError if a cache of `shape` would hold nothing."""
    if min(shape) < 1:
        raise ValueError(f"every size of a cache must be at least 1, got {shape}")


def check_fits(shape: tuple[int, ...], allocated: tuple[int, ...], length: int) -> None:
    """Raise a ValueError if keys (B, H, T, d) of `shape` do not fit behind `length` others in the `allocated` room."""
    batch, heads, capacity, dim = allocated
    if len(shape) != 4 or (shape[0], shape[1], shape[3]) != (batch, heads, dim):
        raise ValueError(f"keys of shape {shape} do not belong to a cache of shape {allocated}")
    if length + shape[2] > capacity:
        raise ValueError(
            f"the cache of shape {allocated} is full: it holds {length} of {capacity} positions, "
            f"keys of shape {shape} do not fit"
        )


class MultiHeadAttention(Module):
    """Causal self-attention with `num_heads` heads of embed_dim / num_heads: (B, T, embed_dim) -> the same shape.

    With fewer `num_kv_heads`, a group of num_heads / num_kv_heads heads shares keys and values.

    Sources: Vaswani et al., "Attention is all you need" (2017), section 3.2.2; Ainslie et al., "GQA: Training
    generalized multi-query transformer models from multi-head checkpoints" (2023), section 2.2.

    Raises
    ------
    ValueError
        If `embed_dim` is no multiple of `num_heads`, or `num_heads` none of `num_kv_heads`.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, rng: np.random.Generator | None = None, num_kv_heads: int | None = None
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is no multiple of num_heads {num_heads}")
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(f"num_heads {num_heads} is no multiple of num_kv_heads {num_kv_heads}")
        rng = init.generator(rng)
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.num_kv_heads = num_kv_heads
        # queries, keys and values in one product
        self.in_proj = Linear(embed_dim, embed_dim + 2 * num_kv_heads * self.head_dim, rng=rng)
        self.out_proj = Linear(embed_dim, embed_dim, rng=rng)

    def forward(self, x: Tensor, past_key_value: PastKeyValue | None = None) -> Tensor:
        """Let each position of x (B, T, C) look at itself and at the positions before it.

        With `past_key_value`, x holds only the positions after those in the cache: they look at the cached ones too,
        and are added to it.

        Raises
        ------
        ValueError
            If x or the cache has another shape than this layer's, or the cache is full; the cache stays as it was.
        RuntimeError
            If a gradient would be needed: none flows into a cache. Use `no_grad`.
        """
        if past_key_value is None and self.num_kv_heads == self.num_heads:
            return self.out_proj(SelfAttention.apply(self._in_proj(x), self.num_heads))
        q, k, v = self.project(x)  # (B, nh, T, hs), keys and values (B, nkv, T, hs)
        if past_key_value is None:
            return self._out_proj(ScaledDotProductAttention.apply(q, self._shared(k), self._shared(v)))
        if is_grad_enabled() and k.requires_grad:
            raise RuntimeError("no gradient flows through past_key_value: call the model under tinytorch.no_grad()")
        if hasattr(past_key_value, "attend"):
            return self._out_proj(Attend.apply(q, k, v, past_key_value))
        keys, values = (Tensor(array) for array in past_key_value.append(k.data, v.data))  # (B, nkv, past + T, hs)
        return self._out_proj(attend(q, self._shared(keys), self._shared(values), past_key_value.starts))

    def _shared(self, x: Tensor) -> Tensor:
        """Give each head its keys or values: (B, nkv, T, hs) -> (B, nh, T, hs)."""
        if self.num_kv_heads == self.num_heads:
            return x
        return x[:, np.repeat(np.arange(self.num_kv_heads), self.num_heads // self.num_kv_heads)]

    def _out_proj(self, y: Tensor) -> Tensor:
        return self.out_proj(y.transpose(1, 2).reshape(y.shape[0], y.shape[2], self.embed_dim))

    def _in_proj(self, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[-1] != self.embed_dim:
            raise ValueError(f"MultiHeadAttention takes (B, T, {self.embed_dim}), got shape {x.shape}")
        return self.in_proj(x)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values of x (B, T, C): (B, num_heads, T, head_dim), of num_kv_heads the latter."""
        batch, length = x.shape[:2]
        heads, shared = self.num_heads, self.num_kv_heads
        # (B, T, C + 2 nkv hs) -> (B, T, nh + 2 nkv, hs) -> (B, nh + 2 nkv, T, hs)
        qkv = self._in_proj(x).reshape(batch, length, heads + 2 * shared, self.head_dim).transpose(1, 2)
        return qkv[:, :heads], qkv[:, heads : heads + shared], qkv[:, heads + shared :]

    def extra_repr(self) -> str:
        """Show the sizes."""
        shared = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}{shared}"


class Attend(Function):
    """Attention as a cache computes it: queries (B, H, T, d), keys and values (B, Hkv, T, d) -> (B, H, T, d).

    There is no derivative: none flows into a cache. What it costs, only the cache knows; to a counter of operations it
    is one that cannot be counted.
    """

    @staticmethod
    def forward(ctx: Context, q: np.ndarray, key: np.ndarray, value: np.ndarray, layer: Any) -> np.ndarray:
        out: np.ndarray = layer.attend(q, key, value)
        return out


def attend(q: Tensor, keys: Tensor, values: Tensor, starts: np.ndarray | None) -> Tensor:
    """Let the last positions q (B, H, T, d) look at all of keys and values (B, H, Tk, d), each not beyond itself.

    If `starts` (B,) tells where each sequence begins, what comes before is padding: it is not looked at, and results
    for it are 0.
    """
    if starts is None:
        y: Tensor = ScaledDotProductAttention.apply(q, keys, values)
        return y
    out = np.zeros(q.shape, np.float32)
    past = keys.shape[2] - q.shape[2]
    for b, start in enumerate(starts.tolist()):
        queries = max(start - past, 0)  # so many of them are padding
        if queries < q.shape[2]:
            parts = (x[b : b + 1, :, first:] for x, first in ((q, queries), (keys, start), (values, start)))
            out[b, :, queries:] = ScaledDotProductAttention.apply(*parts).data[0]
    return Tensor(out)
