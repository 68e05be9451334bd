"""Attention of one query to keys and values that are kept as whole numbers of 8 bits.

A vector of codes has one scale. It goes out of each sum, as in `int8.py`: scores are multiplied by that of their key,
weights by that of their value. So no key and no value is multiplied by its scale, and a quarter of the bytes is read.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from tinytorch.kernels.backend import kernel
from tinytorch.kernels.softmax import softmax


@partial(kernel, indices=True)
def attend_codes(q: np.ndarray, k: np.ndarray, k_scale: np.ndarray, v: np.ndarray, v_scale: np.ndarray) -> np.ndarray:
    """Average the values, each weighted by how well its key fits the query.

    Parameters
    ----------
    q
        One query for each head (B, H, d), float32.
    k, v
        Codes int8 (B, Hkv, T, d); H is a multiple of Hkv, and neighbouring heads share keys and values.
    k_scale, v_scale
        What a code of 1 stands for at each position (B, T), float32.

    Returns
    -------
    np.ndarray
        (B, H, d).
    """
    (batch, heads, depth), shared = q.shape, k.shape[1]
    grouped = q.reshape(batch, shared, heads // shared, depth) * q.dtype.type(1 / math.sqrt(depth))
    scores = grouped @ k.astype(np.float32).swapaxes(-1, -2) * k_scale[:, None, None]  # (B, Hkv, H / Hkv, T)
    out: np.ndarray = (softmax(scores) * v_scale[:, None, None]) @ v.astype(np.float32)
    return out.reshape(q.shape)


@attend_codes.naive
def attend_codes_naive(
    q: np.ndarray, k: np.ndarray, k_scale: np.ndarray, v: np.ndarray, v_scale: np.ndarray
) -> np.ndarray:
    """Work number by number."""
    out, group = np.empty_like(q), q.shape[1] // k.shape[1]
    for b, h in np.ndindex(q.shape[:2]):
        scores = []
        for t in range(k.shape[2]):
            dot = 0.0
            for i in range(q.shape[2]):
                dot += float(q[b, h, i]) * int(k[b, h // group, t, i])
            scores.append(dot * float(k_scale[b, t]) / math.sqrt(q.shape[2]))
        top = max(scores)
        total = sum(math.exp(s - top) for s in scores)
        for i in range(q.shape[2]):
            mean = 0.0
            for t, s in enumerate(scores):
                mean += math.exp(s - top) / total * float(v_scale[b, t]) * int(v[b, h // group, t, i])
            out[b, h, i] = mean
    return out
