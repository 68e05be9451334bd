"""`CachedAttention`: an attention layer that remembers by itself."""

from __future__ import annotations

from tinytorch.autograd import no_grad
from tinytorch.nn.attention import MultiHeadAttention
from tinytorch.nn.cache import KVCache
from tinytorch.nn.module import Module
from tinytorch.tensor import Tensor


class CachedAttention(Module):
    """An attention layer and its place in a cache: each call takes the positions after those of the calls before.

    Parameters
    ----------
    attention
        The layer; it is not copied.
    cache
        Where its keys and values are kept.
    layer_idx
        Which of the cache's layers is its own.

    Raises
    ------
    IndexError
        If the cache has no such layer.
    ValueError
        If the layer's heads do not fit the cache.
    """

    def __init__(self, attention: MultiHeadAttention, cache: KVCache, layer_idx: int) -> None:
        super().__init__()
        layers, _, heads, _, dim = cache.shape
        if not 0 <= layer_idx < layers:
            raise IndexError(f"this cache has layers 0 ... {layers - 1}, not {layer_idx}")
        if (attention.num_kv_heads, attention.head_dim) != (heads, dim):
            raise ValueError(
                f"this layer has {attention.num_kv_heads} heads of keys and values, of {attention.head_dim} numbers; "
                f"the cache is for {heads} of {dim}"
            )
        self.attention, self.layer_idx = attention, layer_idx
        self._cache = cache

    def forward(self, x: Tensor) -> Tensor:
        """Let new positions x (B, T, C) look at themselves and at all that came before; no gradient is recorded.

        A ValueError if x does not fit the layer or the cache, or the cache is full; it stays as it was.
        """
        with no_grad():
            return self.attention(x, self._cache[self.layer_idx])
