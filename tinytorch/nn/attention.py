"""Multi-head self-attention, and the keys and values that it can remember."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import is_grad_enabled
from tinytorch.nn import init
from tinytorch.nn.linear import Linear
from tinytorch.nn.module import Module
from tinytorch.ops.attention import ScaledDotProductAttention, SelfAttention
from tinytorch.tensor import Tensor


class PastKeyValue:
    """The keys and values of one attention layer for the positions it has seen, in memory allocated once.

    Parameters
    ----------
    batch_size, num_heads, max_seq_len, head_dim
        `keys` and `values` are float32 arrays of shape (batch_size, num_heads, max_seq_len, head_dim).
    """

    def __init__(self, batch_size: int, num_heads: int, max_seq_len: int, head_dim: int) -> None:
        shape = (batch_size, num_heads, max_seq_len, head_dim)
        if min(shape) < 1:
            raise ValueError(f"every size of a cache must be at least 1, got {shape}")
        self.keys = np.zeros(shape, np.float32)
        self.values = np.zeros(shape, np.float32)
        self.length = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The allocated (batch_size, num_heads, max_seq_len, head_dim)."""
        return self.keys.shape

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values together."""
        return self.keys.nbytes + self.values.nbytes

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError that names both shapes if keys (B, H, T, d) of `shape` do not fit behind those held."""
        batch, heads, capacity, dim = self.shape
        if len(shape) != 4 or (shape[0], shape[1], shape[3]) != (batch, heads, dim):
            raise ValueError(f"keys of shape {shape} do not belong to a cache of shape {self.shape}")
        if self.length + shape[2] > capacity:
            raise ValueError(
                f"the cache of shape {self.shape} is full: it holds {self.length} of {capacity} positions, "
                f"keys of shape {shape} do not fit"
            )

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
        self.length = 0


class MultiHeadAttention(Module):
    """Causal self-attention with `num_heads` heads of embed_dim / num_heads: (B, T, embed_dim) -> the same shape.

    Source: Vaswani et al., "Attention is all you need" (2017), section 3.2.2.
    """

    def __init__(self, embed_dim: int, num_heads: int, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is no multiple of num_heads {num_heads}")
        rng = init.generator(rng)
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.in_proj = Linear(embed_dim, 3 * embed_dim, rng=rng)  # queries, keys and values in one product
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
        if past_key_value is None:
            return self.out_proj(SelfAttention.apply(self._in_proj(x), self.num_heads))
        q, k, v = self.project(x)  # each (B, nh, T, hs)
        if is_grad_enabled() and k.requires_grad:
            raise RuntimeError("no gradient flows through past_key_value: call the model under tinytorch.no_grad()")
        keys, values = past_key_value.append(k.data, v.data)
        y: Tensor = ScaledDotProductAttention.apply(q, Tensor(keys), Tensor(values))  # keys (B, nh, past + T, hs)
        return self.out_proj(y.transpose(1, 2).reshape(x.shape))

    def _in_proj(self, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[-1] != self.embed_dim:
            raise ValueError(f"MultiHeadAttention takes (B, T, {self.embed_dim}), got shape {x.shape}")
        return self.in_proj(x)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values of x (B, T, C): each (B, num_heads, T, head_dim)."""
        batch, length = x.shape[:2]
        # (B, T, 3 C) -> (B, T, 3, nh, hs) -> (3, B, nh, T, hs)
        qkv = self._in_proj(x).reshape(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        return qkv[0], qkv[1], qkv[2]

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
