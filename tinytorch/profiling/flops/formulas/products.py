"""Matrix products, convolution and attention: where the multiply-accumulates are.

A convolution counts the zeros of its padding as PyTorch does, and attention the positions that its mask hides.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.ops.attention import ScaledDotProductAttention, SelfAttention
from tinytorch.ops.image import Conv2d
from tinytorch.ops.linear import Linear, MatMul
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.activation import SOFTMAX, SOFTMAX_GRAD
from tinytorch.profiling.flops.formulas.parts import gradient_bytes, needed, result, summed
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array


def _product(macs: int, other_flops: int, moved: int) -> Count:
    return Count(macs, 2 * macs + other_flops, moved)


@counts(MatMul, "forward")
def _matmul(operation: Operation) -> Count:
    """k MACs for each element of (..., n, k) @ (..., k, m)."""
    a, y = operation.inputs[0], result(operation)
    return _product(y.size * a.shape[-1], 0, traffic(operation.inputs, y))


@counts(MatMul, "backward")
def _matmul_grad(operation: Operation) -> Count:
    """dA = G B^T, dB = A^T G, each summed over the batches for which its matrix was repeated."""
    (a, b), g = operation.saved, result(operation)
    left, right = (1, *a.shape) if len(a.shape) == 1 else a.shape, (*b.shape, 1) if len(b.shape) == 1 else b.shape
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    macs, sums, moved = 0, 0, g.nbytes
    for i, x in needed(operation):
        shape = right if i else left
        macs += g.size * left[-1]
        sums += summed(Array((*batch, *shape[-2:]), g.dtype), Array(shape, g.dtype))
        moved += traffic(operation.saved[1 - i]) + gradient_bytes(g, x)
    return _product(macs, sums, moved)


@counts(Linear, "forward")
@counts(Conv2d, "forward")
def _layer(operation: Operation) -> Count:
    """As many MACs for each element of the result as one output has weights, and one addition for its bias."""
    x, weight, bias = operation.inputs[:3]
    y = result(operation)
    return _product(y.size * math.prod(weight.shape[1:]), y.size * (bias is not None), traffic(x, weight, bias, y))


@counts(Linear, "backward")
@counts(Conv2d, "backward")
def _layer_grad(operation: Operation) -> Count:
    """Input and weight: each MAC of the forward once more. Bias: a sum of the gradient."""
    (x, weight), g = operation.saved[:2], result(operation)
    macs, additions, moved = 0, 0, g.nbytes
    for i, of in needed(operation):
        if i == 2:
            additions = g.size
        else:
            macs += g.size * math.prod(weight.shape[1:])
            moved += traffic(x if i else weight)
        moved += gradient_bytes(g, of)
    return _product(macs, additions, moved)


@counts(ScaledDotProductAttention, "forward")
def _attention(operation: Operation) -> Count:
    """softmax(Q K^T / sqrt(d)) V."""
    q, k, v, is_causal = operation.inputs
    return _attend(q.shape, k.shape[2], v.shape[3], is_causal, traffic(q, k, v, result(operation)))


@counts(ScaledDotProductAttention, "backward")
def _attention_grad(operation: Operation) -> Count:
    """dV = P^T G, dP = G V^T, dS = softmax'(dP) / sqrt(d), dQ = dS K, dK = dS^T Q."""
    q, k, v, _, _, is_causal = operation.saved
    return _attend_grad(q.shape, k.shape[2], v.shape[3], is_causal, traffic(result(operation), 2 * (q, k, v)))


@counts(SelfAttention, "forward")
def _self_attention(operation: Operation) -> Count:
    """The same of all heads, causal."""
    qkv, heads = operation.inputs
    q = _queries(qkv.shape, heads)
    return _attend(q, q[2], q[3], True, traffic(qkv, result(operation)))


@counts(SelfAttention, "backward")
def _self_attention_grad(operation: Operation) -> Count:
    """The same of all heads, causal."""
    qkv, heads, _, _ = operation.saved
    q = _queries(qkv.shape, heads)
    return _attend_grad(q, q[2], q[3], True, traffic(result(operation), qkv, qkv))


def _queries(qkv: tuple[int, ...], heads: int) -> tuple[int, ...]:
    batch, length, width = qkv
    return batch, heads, length, width // (3 * heads)


def _attend(queries: tuple[int, ...], keys: int, value_width: int, is_causal: bool, moved: int) -> Count:
    """Count d + dv MACs, a division and the softmax for each score of queries (B, H, T, d) and keys."""
    return _scores(queries, keys, is_causal, queries[3] + value_width, 1 + SOFTMAX, moved)


def _attend_grad(queries: tuple[int, ...], keys: int, value_width: int, is_causal: bool, moved: int) -> Count:
    """Count the four products, the softmax's derivative and a division, from the weights P as they were.

    Kernels that did not keep P compute Q K^T once more. That is their way to spare memory, and not counted.
    """
    return _scores(queries, keys, is_causal, 2 * (queries[3] + value_width), SOFTMAX_GRAD + 1, moved)


def _scores(queries: tuple[int, ...], keys: int, is_causal: bool, macs: int, others: int, moved: int) -> Count:
    """Count `macs` MACs and `others` FLOPs for each score; of T queries the first has T - 1 hidden, the last none."""
    batch, heads, length, _ = queries
    scores, hidden = batch * heads * length * keys, batch * heads * length * (length - 1) // 2
    one = 2 * macs + others
    return Count(scores * macs, scores * one, moved, hidden * one if is_causal else 0)
