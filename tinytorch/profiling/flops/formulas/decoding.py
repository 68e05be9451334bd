"""A transformer block's step in generation: what its layers cost one by one."""

from __future__ import annotations

import math

from tinytorch.kernels.decoding import BlockWeights
from tinytorch.ops.decoding import DecoderStep
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.activation import GELU, SOFTMAX
from tinytorch.profiling.flops.formulas.normalization import ELEMENT, GROUP
from tinytorch.profiling.flops.formulas.parts import result
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array


@counts(DecoderStep, "forward")
def _decoder_step(operation: Operation) -> Count:
    """For each sequence: a MAC for each weight, two norms, GELU, two sums; attention of one query to the cache.

    Where sequences begin later than at 0, so much of it is not done; the shapes do not tell.
    """
    x, weights, keys, values, heads, past, starts = operation.inputs[:7]
    w, batch, width = BlockWeights(*weights), x.shape[0], x.shape[2]
    matrices, biases = (w.qkv, w.out, w.up, w.down), (w.qkv_bias, w.out_bias, w.up_bias, w.down_bias)
    held, scores = past + 1, heads * (past + 1)
    macs = sum(math.prod(matrix.shape) for matrix in matrices) + scores * (keys.shape[3] + values.shape[3])
    others = sum(bias.shape[0] for bias in biases) + 2 * (ELEMENT * width + GROUP) + GELU * w.up_bias.shape[0]
    others += 2 * width + scores * (1 + SOFTMAX)
    read = [Array((*cache.shape[:2], held, cache.shape[3]), cache.dtype) for cache in (keys, values)]
    return Count(batch * macs, batch * (2 * macs + others), traffic(x, *weights, *read, starts, result(operation)))
