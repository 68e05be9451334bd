"""A GPT's step in generation: what its layers cost one by one."""

from __future__ import annotations

import math
from typing import Any

from tinytorch.kernels.decoding import BlockWeights, DecoderWeights
from tinytorch.ops.decoding import DecoderStep
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas import dynamic
from tinytorch.profiling.flops.formulas.activation import GELU, SOFTMAX
from tinytorch.profiling.flops.formulas.normalization import ELEMENT, GROUP
from tinytorch.profiling.flops.formulas.parts import result
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array


@counts(DecoderStep, "forward")
def _decoder_step(operation: Operation) -> Count:
    """For each sequence: a sum of two rows, the blocks, a norm, and a MAC for each weight of the head.

    Where sequences begin later than at 0, less is done and more rows of positions are read; the shapes do not tell.
    """
    tokens, ids, weights, keys, values, heads, past, starts = operation.inputs[:8]
    w, batch, width = DecoderWeights(*weights), ids.shape[0], tokens.shape[1]
    macs, rounding = _matrix(w.head)
    others = width + ELEMENT * width + GROUP + rounding
    for block in w.blocks:
        more_macs, more_others = _block(BlockWeights(*block), heads, past + 1, keys.shape[4] + values.shape[4])
        macs, others = macs + more_macs, others + more_others
    rows = [Array((min(batch, tokens.shape[0]), width), tokens.dtype), Array((1, width), w.positions.dtype)]
    held = [Array((*cache.shape[:3], past + 1, cache.shape[4]), cache.dtype) for cache in (keys, values)]
    moved = traffic(*rows, ids, w.blocks, w.norm, w.norm_bias, w.head, *held, starts, result(operation))
    return Count(batch * macs, batch * (2 * macs + others), moved)


def _matrix(weight: Any) -> tuple[int, int]:
    """Count the MACs of a product with a vector, of `Kept` weights those that are stored; and what rounding costs."""
    if isinstance(weight, Array):
        return math.prod(weight.shape), 0
    if len(weight[0].shape) == 1:  # values, indices, indptr
        return weight[0].size, 0
    outputs, inputs = weight[0].shape
    return outputs * inputs, dynamic.ELEMENT * inputs + dynamic.ROW + dynamic.RESCALED * outputs


def _block(w: Any, heads: int, held: int, depth: int) -> tuple[int, int]:
    """Count the MACs of a block, and its other operations: biases, two norms, GELU, two sums, one query's attention."""
    matrices, biases = map(_matrix, (w.qkv, w.out, w.up, w.down)), (w.qkv_bias, w.out_bias, w.up_bias, w.down_bias)
    scores, width = heads * held, w.out_bias.shape[0]
    macs, rounding = map(sum, zip(*matrices, strict=True))
    macs += scores * depth
    others = (
        rounding + sum(bias.shape[0] for bias in biases) + 2 * (ELEMENT * width + GROUP) + GELU * w.up_bias.shape[0]
    )
    return macs, others + 2 * width + scores * (1 + SOFTMAX)
