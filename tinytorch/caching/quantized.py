"""`QuantizedKVCache`: keys and values as whole numbers of 8 bits."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels.attention import attention
from tinytorch.kernels.int8_attention import attend_codes
from tinytorch.nn.attention import check_fits
from tinytorch.nn.cache import Layers


class QuantizedLayer:
    """One layer of a `QuantizedKVCache`.

    Attributes
    ----------
    codes
        Of keys and values, int8 (2, B, H, max_seq_len, d).
    scales
        What a code of 1 stands for at each position, float32 (2, B, max_seq_len).
    """

    starts = None  # all sequences begin at 0

    def __init__(self, batch_size: int, num_kv_heads: int, max_seq_len: int, head_dim: int) -> None:
        shape = (batch_size, num_kv_heads, max_seq_len, head_dim)
        if min(shape) < 1:
            raise ValueError(f"every size of a cache must be at least 1, got {shape}")
        self.codes = np.zeros((2, *shape), np.int8)
        self.scales = np.zeros((2, batch_size, max_seq_len), np.float32)
        self.length = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The allocated (batch_size, num_kv_heads, max_seq_len, head_dim)."""
        return self.codes.shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes allocated for codes and scales."""
        return self.codes.nbytes + self.scales.nbytes

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError if keys (B, H, T, d) of `shape` do not fit behind those held."""
        check_fits(shape, self.shape, self.length)

    def attend(self, q: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Add keys and values (B, Hkv, T, d) of T new positions, and let their queries (B, H, T, d) look at all.

        What is looked at are the codes, also of the new positions. A single query reads them as they are; for several
        at once, as a prompt has them, all are made floats again, since there arithmetic is the limit, not bytes.

        Raises
        ------
        ValueError
            If they do not fit; the cache stays as it was.
        """
        self.check(key.shape)
        if value.shape != key.shape:
            raise ValueError(f"keys have shape {key.shape}, values {value.shape}")
        new = slice(self.length, self.length + key.shape[2])
        for which, x in enumerate((key, value)):
            self.scales[which, :, new], self.codes[which, :, :, new] = _quantized(x)
        self.length = new.stop
        (k, v), (k_scale, v_scale) = self.codes[:, :, :, : self.length], self.scales[:, :, : self.length]
        if q.shape[2] == 1:
            return attend_codes(q[:, :, 0], k, k_scale, v, v_scale)[:, :, None]
        group = q.shape[1] // k.shape[1]
        floats = (np.repeat(x * s[:, None, :, None], group, axis=1) for x, s in ((k, k_scale), (v, v_scale)))
        return attention(q, *floats, True)[0]

    def reset(self) -> None:
        """Forget all positions; the memory stays allocated."""
        self.length = 0


def _quantized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scales (B, T) and codes (B, H, T, d) of x: a position has one scale for all heads, codes -127 ... 127."""
    scale = np.abs(x).max(axis=(1, 3)) / np.float32(127)  # (B, T)
    safe = np.where(scale > 0, scale, 1)[:, None, :, None]
    return scale, np.rint(x / safe).astype(np.int8)


class QuantizedKVCache(Layers[QuantizedLayer]):
    """What a model remembers, in a quarter of the bytes: pass it as `past_key_values`.

    Codes are symmetric, with one float32 scale for the keys of a position and one for its values, so a position of C
    numbers takes 2 (C + 4) bytes instead of 8 C. Finer scales: Hooper et al., "KVQuant: Towards 10 million context
    length LLM inference with KV cache quantization" (2024).

    Parameters
    ----------
    batch_size, max_seq_len, num_layers, num_kv_heads, head_dim
        As those of `nn.KVCache`.

    Raises
    ------
    ValueError
        If a size is below 1.

    Examples
    --------
    >>> cache = QuantizedKVCache(batch_size=1, max_seq_len=256, num_layers=4, num_kv_heads=4, head_dim=32)
    >>> cache.nbytes  # nn.KVCache takes 1,048,576
    270336
    """

    def __init__(self, batch_size: int, max_seq_len: int, num_layers: int, num_kv_heads: int, head_dim: int) -> None:
        sizes = batch_size, num_kv_heads, max_seq_len, head_dim
        super().__init__([QuantizedLayer(*sizes) for _ in range(num_layers)])
