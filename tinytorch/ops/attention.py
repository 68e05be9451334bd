"""Scaled dot-product attention as one operation."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.softmax import softmax, softmax_grad


def causal_mask(queries: int, keys: int) -> np.ndarray:
    """Return a (queries, keys) array that is True where a query must not look.

    The last query stands at the last key: with earlier keys in a cache, row i sees keys 0 ... keys - queries + i.

    >>> causal_mask(2, 3)
    array([[False, False,  True],
           [False, False, False]])
    """
    return np.triu(np.ones((queries, keys), bool), k=keys - queries + 1)


class ScaledDotProductAttention(Function):
    """softmax(Q K^T / sqrt(d)) V for q (B, H, Tq, d), k and v (B, H, Tk, d) -> (B, H, Tq, d).

    Source: Vaswani et al., "Attention is all you need" (2017), section 3.2.1.
    """

    @staticmethod
    def forward(ctx: Context, q: np.ndarray, k: np.ndarray, v: np.ndarray, is_causal: bool = True) -> np.ndarray:
        scale = q.dtype.type(1.0 / math.sqrt(q.shape[-1]))
        scores = (q * scale) @ k.swapaxes(-1, -2)  # (B, H, Tq, Tk)
        if is_causal and q.shape[-2] > 1:  # a single query is the last position: nothing to hide
            scores += np.where(causal_mask(*scores.shape[-2:]), q.dtype.type(-np.inf), q.dtype.type(0))
        p = softmax(scores)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # dV = P^T G, dP = G V^T, dS = softmax'(dP), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d)
        q, k, v, p = ctx.saved_tensors
        grad_v = p.swapaxes(-1, -2) @ grad_output
        grad_scores = softmax_grad(grad_output @ v.swapaxes(-1, -2), p)
        grad_scores *= 1.0 / math.sqrt(q.shape[-1])
        return (grad_scores @ k, grad_scores.swapaxes(-1, -2) @ q, grad_v, None)[: len(ctx.needs_input_grad)]
