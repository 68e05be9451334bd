"""`WindowKVCache`: the first few positions and the last ones, in memory that does not grow with the text."""

from __future__ import annotations

import sys
from typing import Any, Self

import numpy as np

from tinytorch.kernels.attention import attention
from tinytorch.nn.cache import Layers, sizes_of


class WindowLayer:
    """One layer of a `WindowKVCache`: `keys` and `values` are float32 (B, H, sinks + window, d).

    The window is a ring: a new position takes the place of the oldest. Attention does not mind the order of what it
    looks at.
    """

    starts = None  # all sequences begin at 0

    def __init__(self, batch_size: int, num_kv_heads: int, window: int, sinks: int, head_dim: int) -> None:
        if min(batch_size, num_kv_heads, window, head_dim) < 1 or sinks < 0:
            raise ValueError(
                f"a window needs sizes of at least 1, and sinks of at least 0: got batch_size {batch_size}, "
                f"num_kv_heads {num_kv_heads}, window {window}, head_dim {head_dim}, sinks {sinks}"
            )
        self.keys, self.values = np.zeros((2, batch_size, num_kv_heads, sinks + window, head_dim), np.float32)
        self.window, self.sinks = window, sinks
        self.length = 0  # positions seen

    @property
    def shape(self) -> tuple[int, ...]:
        """The (batch_size, num_kv_heads, positions, head_dim) that it can take: positions without end."""
        batch, heads, _, dim = self.keys.shape
        return batch, heads, sys.maxsize, dim

    @property
    def held(self) -> int:
        """How many positions are remembered."""
        return min(self.length, self.keys.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError if keys of `shape` are not (B, H, T, d) of this cache."""
        batch, heads, _, dim = self.keys.shape
        if len(shape) != 4 or (shape[0], shape[1], shape[3]) != (batch, heads, dim):
            raise ValueError(f"keys of shape {shape} do not belong to a cache of shape {(batch, heads, 'T', dim)}")

    def attend(self, q: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Add keys and values (B, Hkv, T, d) of T new positions, and let their queries (B, H, T, d) look.

        A single query looks at the sinks and at the last `window` positions, its own among them. Several at once look
        at what was held and at all new positions up to their own, as a prompt does; then the oldest are forgotten.

        Raises
        ------
        ValueError
            If they do not fit; the cache stays as it was.
        """
        self.check(key.shape)
        if value.shape != key.shape:
            raise ValueError(f"keys have shape {key.shape}, values {value.shape}")
        group = q.shape[1] // key.shape[1]
        if q.shape[2] == 1:
            self._keep(key, value)
            seen = (x[:, :, : self.held] for x in (self.keys, self.values))
            return attention(q, *(np.repeat(x, group, axis=1) if group > 1 else x for x in seen), False)[0]
        pairs = (self.keys, key), (self.values, value)
        seen = (np.concatenate([old[:, :, : self.held], new], axis=2) for old, new in pairs)
        out = attention(q, *(np.repeat(x, group, axis=1) if group > 1 else x for x in seen), True)[0]
        self._keep(key, value)
        return out

    def reset(self) -> None:
        """Forget all positions; the memory stays allocated."""
        self.length = 0

    def _keep(self, key: np.ndarray, value: np.ndarray) -> None:
        positions = np.arange(self.length, self.length + key.shape[2])
        kept = (positions < self.sinks) | (positions >= max(len(positions) + self.length - self.window, self.sinks))
        positions = positions[kept]
        places = np.where(positions < self.sinks, positions, self.sinks + (positions - self.sinks) % self.window)
        self.keys[:, :, places], self.values[:, :, places] = key[:, :, kept], value[:, :, kept]
        self.length += key.shape[2]


class WindowKVCache(Layers[WindowLayer]):
    """What a model remembers of the first `sinks` positions and of the last `window`: pass it as `past_key_values`.

    Its memory is the same for every length of the text, and so is the time of a step. The first positions are kept
    since a model gives weight to them whatever they say, as softmax has to give it to something; without them the rest
    of the weights is not what the model was trained with. How long a text can become is still up to the model:
    embeddings of positions are learned up to `max_seq_len`.

    Source: Xiao et al., "Efficient streaming language models with attention sinks" (2024), section 3.

    Parameters
    ----------
    batch_size, num_layers, num_kv_heads, head_dim
        As those of `nn.KVCache`.
    window, sinks
        How many of the last and of the first positions are kept.

    Raises
    ------
    ValueError
        If a size is below 1, or `sinks` below 0.

    Examples
    --------
    >>> cache = WindowKVCache(batch_size=1, window=60, sinks=4, num_layers=4, num_kv_heads=4, head_dim=32)
    >>> cache.nbytes
    262144
    """

    def __init__(
        self, batch_size: int, window: int, sinks: int, num_layers: int, num_kv_heads: int, head_dim: int
    ) -> None:
        sizes = batch_size, num_kv_heads, window, sinks, head_dim
        super().__init__([WindowLayer(*sizes) for _ in range(num_layers)])

    @classmethod
    def of(  # type: ignore[override]  # how much it keeps is nothing that a model could tell
        cls, model: Any, batch_size: int = 1, *, window: int, sinks: int
    ) -> Self:
        """Return an empty cache for a GPT. A TypeError if the model is none."""
        return cls(batch_size, window, sinks, *sizes_of(model))

    def truncate(self, length: int) -> None:
        """Refuse: what was forgotten does not come back. A ValueError, unless nothing would have to."""
        if length != self.length:
            raise ValueError(
                f"a window cannot be cut from {self.length} to {length} positions: what it has forgotten does not come "
                "back. reset() it and feed the text again"
            )
