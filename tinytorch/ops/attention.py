"""Scaled dot-product attention as one operation."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.attention import attention, attention_grad


class ScaledDotProductAttention(Function):
    """softmax(Q K^T / sqrt(d)) V for q (B, H, Tq, d), k and v (B, H, Tk, d) -> (B, H, Tq, d).

    Source: Vaswani et al., "Attention is all you need" (2017), section 3.2.1.
    """

    @staticmethod
    def forward(ctx: Context, q: np.ndarray, k: np.ndarray, v: np.ndarray, is_causal: bool = True) -> np.ndarray:
        out, kept = attention(q, k, v, is_causal)
        ctx.save_for_backward(q, k, v, out, kept, is_causal)
        return out

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # dV = P^T G, dP = G V^T, dS = softmax'(dP), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d)
        grads = tuple(np.empty_like(x) for x in ctx.saved_tensors[:3])
        attention_grad(grad_output, *ctx.saved_tensors, *grads)
        return (*grads, None)[: len(ctx.needs_input_grad)]


class SelfAttention(Function):
    """Causal attention within each sequence: queries, keys and values side by side (B, T, 3 C) -> (B, T, C).

    As `ScaledDotProductAttention` of their heads, without taking the three apart: they and their gradients stay where
    the layers around write and read them.
    """

    @staticmethod
    def forward(ctx: Context, qkv: np.ndarray, num_heads: int) -> np.ndarray:
        q, k, v = _heads(qkv, num_heads)
        out, kept = attention(q, k, v, True)
        ctx.save_for_backward(qkv, num_heads, out, kept)
        return out.transpose(0, 2, 1, 3).reshape(*qkv.shape[:2], qkv.shape[2] // 3)  # (B, T, nh, hs) -> (B, T, C)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None]:
        # as for ScaledDotProductAttention
        qkv, num_heads, out, kept = ctx.saved_tensors
        grad = grad_output.reshape(out.transpose(0, 2, 1, 3).shape).transpose(0, 2, 1, 3)
        grad_qkv = np.empty(qkv.shape, qkv.dtype)
        attention_grad(grad, *_heads(qkv, num_heads), out, kept, True, *_heads(grad_qkv, num_heads))
        return (grad_qkv, None)


def _heads(qkv: np.ndarray, num_heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """View (B, T, 3 C) as three times (B, nh, T, hs)."""
    batch, length, width = qkv.shape
    q, k, v = qkv.reshape(batch, length, 3, num_heads, width // (3 * num_heads)).transpose(2, 0, 3, 1, 4)
    return q, k, v
