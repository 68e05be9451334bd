"""Operations without weights, under PyTorch's names."""

from __future__ import annotations

import numpy as np

from tinytorch.ops import attention, loss
from tinytorch.tensor import Tensor


def cross_entropy(logits: Tensor, targets: Tensor | np.ndarray) -> Tensor:
    """Mean of -log softmax(logits)[target], in nats.

    Parameters
    ----------
    logits
        Scores (..., C).
    targets
        Class numbers (...), each in 0 ... C - 1.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is nothing to average, or a target is no class number.
    """
    array = targets.data if isinstance(targets, Tensor) else np.asarray(targets)
    if array.shape != logits.shape[:-1]:
        raise ValueError(f"logits of shape {logits.shape} need targets of {logits.shape[:-1]}, got {array.shape}")
    classes = logits.shape[-1]
    if array.size == 0 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= classes:
        raise ValueError(f"targets must be class numbers in 0 ... {classes - 1}, at least one of them")
    return loss.CrossEntropy.apply(logits.reshape(-1, classes), array.reshape(-1))


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V for query (B, H, Tq, d), key (B, H, Tk, d), value (B, H, Tk, dv) -> (B, H, Tq, dv).

    With `is_causal` the last query stands at the last key, and no query looks at later keys.

    Source: Vaswani et al., "Attention is all you need" (2017), section 3.2.1.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is no key, or it is causal and there are more queries than keys: the first would
        look at nothing.
    """
    q, k, v = query.shape, key.shape, value.shape
    if not len(q) == len(k) == len(v) == 4 or not q[:2] == k[:2] == v[:2] or q[3] != k[3] or k[2] != v[2]:
        raise ValueError(f"attention takes (B, H, Tq, d), (B, H, Tk, d) and (B, H, Tk, dv), got {q}, {k} and {v}")
    if not k[2] or (is_causal and q[2] > k[2]):
        kind = "causal attention" if is_causal else "attention"
        raise ValueError(f"{kind} of {q[2]} queries to {k[2]} keys: the first see nothing")
    return attention.ScaledDotProductAttention.apply(query, key, value, is_causal)
