"""Scaled dot-product attention: softmax(Q K^T / sqrt(d)) V, and its gradients.

The NumPy version writes the table of scores, one row for each query and one column for each key, to memory. The naive
and the compiled one never hold it: of the softmax they keep one number for each query, the logarithm of its sum, with
which any of its weights can be computed again.

Sources: Vaswani et al., "Attention is all you need" (2017), section 3.2.1; Milakov & Gimelshein, "Online normalizer
calculation for softmax" (2018); Dao, "FlashAttention-2" (2023), algorithms 1 and 2.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.backend import kernel
from tinytorch.kernels.softmax import softmax, softmax_grad


def causal_mask(queries: int, keys: int) -> np.ndarray:
    """Return a (queries, keys) array that is True where a query must not look.

    The last query stands at the last key: with earlier keys in a cache, row i sees keys 0 ... keys - queries + i.

    >>> causal_mask(2, 3)
    array([[False, False,  True],
           [False, False, False]])
    """
    return np.triu(np.ones((queries, keys), bool), k=keys - queries + 1)


@kernel
def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, is_causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Average the values, each weighted by how well its key fits the query.

    Parameters
    ----------
    q, k, v
        Queries (B, H, Tq, d), keys (B, H, Tk, d), values (B, H, Tk, dv), of any strides; Tk >= 1.
    is_causal
        The last query stands at the last key, and none looks at a later one; then Tq <= Tk.

    Returns
    -------
    tuple of np.ndarray
        The averages (B, H, Tq, dv), and what `attention_grad` needs of the weights: all of them (B, H, Tq, Tk) here,
        log sum exp of each query's scores (B, H, Tq) in the other versions.
    """
    scores = _scores(q, k)
    if is_causal and q.shape[-2] > 1:  # a single query is the last position: nothing to hide
        scores += np.where(causal_mask(*scores.shape[-2:]), q.dtype.type(-np.inf), q.dtype.type(0))
    p = softmax(scores)
    return p @ v, p


def _scores(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    return (q * q.dtype.type(1.0 / math.sqrt(q.shape[-1]))) @ k.swapaxes(-1, -2)  # (B, H, Tq, Tk)


@attention.naive
def attention_naive(q: np.ndarray, k: np.ndarray, v: np.ndarray, is_causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Work number by number."""
    out, log_sum = np.empty((*q.shape[:3], v.shape[3]), q.dtype), np.empty(q.shape[:3], q.dtype)
    for at in np.ndindex(q.shape[:3]):
        scores = _scores_naive(q[at], k[at[:2]], _visible(q, k, at[2], is_causal))
        top, total = max(scores), 0.0
        for s in scores:
            total += math.exp(s - top)
        for c in range(v.shape[3]):
            mean = 0.0
            for j, s in enumerate(scores):
                mean += math.exp(s - top) / total * float(v[*at[:2], j, c])
            out[at][c] = mean
        log_sum[at] = top + math.log(total)
    return out, log_sum


def _visible(q: np.ndarray, k: np.ndarray, query: int, is_causal: bool) -> int:
    """Return how many keys a query sees."""
    return k.shape[2] - q.shape[2] + query + 1 if is_causal else k.shape[2]


def _scores_naive(query: np.ndarray, keys: np.ndarray, count: int) -> list[float]:
    """Score the first `count` keys (Tk, d) for a query (d,)."""
    scores = []
    for j in range(count):
        dot = 0.0
        for a, b in zip(query.tolist(), keys[j].tolist(), strict=True):
            dot += a * b
        scores.append(dot / math.sqrt(len(query)))
    return scores


@kernel
def attention_grad(
    grad: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray, kept: np.ndarray, is_causal: bool,
    dq: np.ndarray, dk: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """Write the gradients of `attention` for q, k and v into dq, dk and dv, arrays or views of their shapes.

    dV = P^T G, dP = G V^T, dS = softmax'(dP), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d). `out` and `kept` are what
    the forward pass returned, of whichever version.
    """
    p = kept if kept.ndim == 4 else np.exp(_scores(q, k) - kept[..., None])
    if kept.ndim == 3 and is_causal:
        p[..., causal_mask(*p.shape[-2:])] = 0
    np.matmul(p.swapaxes(-1, -2), grad, out=dv)
    grad_scores = softmax_grad(grad @ v.swapaxes(-1, -2), p)
    grad_scores *= 1.0 / math.sqrt(q.shape[-1])
    np.matmul(grad_scores, k, out=dq)
    np.matmul(grad_scores.swapaxes(-1, -2), q, out=dk)


@attention_grad.naive
def attention_grad_naive(
    grad: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray, kept: np.ndarray, is_causal: bool,
    dq: np.ndarray, dk: np.ndarray, dv: np.ndarray,
) -> None:  # fmt: skip
    """Work number by number."""
    for array in (dq, dk, dv):
        array[...] = 0
    for at in np.ndindex(q.shape[:3]):
        head, (queries, keys, values) = at[:2], (q[at], k[at[:2]], v[at[:2]])
        mean_dp = 0.0
        for c in range(v.shape[3]):
            mean_dp += float(grad[at][c]) * float(out[at][c])
        for j, score in enumerate(_scores_naive(queries, keys, _visible(q, k, at[2], is_causal))):
            p = float(kept[*at, j]) if kept.ndim == 4 else math.exp(score - float(kept[at]))
            dp = 0.0
            for c in range(v.shape[3]):
                dp += float(grad[at][c]) * float(values[j, c])
                dv[*head, j, c] += p * float(grad[at][c])
            ds = p * (dp - mean_dp) / math.sqrt(q.shape[3])
            for c in range(q.shape[3]):
                dq[at][c] += ds * float(keys[j, c])
                dk[*head, j, c] += ds * float(queries[c])
