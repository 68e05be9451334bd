"""Layer norm and batch norm: so many FLOPs for each element, and some for each group that is normalized."""

from __future__ import annotations

import math

from tinytorch.ops import normalization as ops
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import result
from tinytorch.profiling.operation import Operation

# (x - mean) / sqrt(var + eps) * weight + bias. An element: the sum of the mean; x - mean; its square and the sum of the
# variance; times 1 / std, times weight, plus bias. A group: two divisions for mean and variance, + eps, sqrt, 1 / std.
ELEMENT, GROUP = 7, 5
# An element: n = (x - mean) / std takes two; dw += g n two; db += g; g w; sums of g w and g w n three;
# (g w - mean(g w) - n mean(g w n)) / std four. A group: the divisions of two means.
_ELEMENT_GRAD, _GROUP_GRAD = 13, 2
_RUNNING = 7  # a channel: mean += momentum (m - mean) three, var += momentum (v n / (n - 1) - var) four


@counts(ops.LayerNorm, "forward")
def _layer_norm(operation: Operation) -> Count:
    """Groups are the rows of x (..., D)."""
    x, y = operation.inputs[0], result(operation)
    return Count(flops=ELEMENT * x.size + GROUP * math.prod(x.shape[:-1]), bytes=traffic(operation.inputs, y))


@counts(ops.LayerNorm, "backward")
def _layer_norm_grad(operation: Operation) -> Count:
    """All three gradients, whichever are asked for: the `Function` computes them together."""
    x, weight = operation.saved[:2]
    moved = traffic(result(operation), operation.saved, x, weight, weight)
    return Count(flops=_ELEMENT_GRAD * x.size + _GROUP_GRAD * math.prod(x.shape[:-1]), bytes=moved)


@counts(ops.BatchNorm2d, "forward")
def _batch_norm(operation: Operation) -> Count:
    """Groups are the channels of x (N, C, H, W); the running statistics follow, in place."""
    x, y = operation.inputs[0], result(operation)
    return Count(flops=ELEMENT * x.size + (GROUP + _RUNNING) * x.shape[1], bytes=traffic(operation.inputs, y))


@counts(ops.BatchNorm2d, "backward")
def _batch_norm_grad(operation: Operation) -> Count:
    """As for layer norm."""
    x, weight = operation.saved[:2]
    moved = traffic(result(operation), operation.saved, x, weight, weight)
    return Count(flops=_ELEMENT_GRAD * x.size + _GROUP_GRAD * x.shape[1], bytes=moved)


@counts(ops.FrozenBatchNorm2d, "forward")
def _frozen(operation: Operation) -> Count:
    """x scale + shift, with scale = weight / sqrt(var + eps) and shift = bias - mean scale: six for a channel."""
    x, y = operation.inputs[0], result(operation)
    return Count(flops=2 * x.size + 6 * x.shape[1], bytes=traffic(operation.inputs, y))


@counts(ops.FrozenBatchNorm2d, "backward")
def _frozen_grad(operation: Operation) -> Count:
    """dx = g scale if it is asked for; dw = sum g (x - mean) / std and db = sum g in any case."""
    (x, scale, mean, inv_std), g = operation.saved, result(operation)
    weight = bias = scale
    parameters = Count(flops=5 * x.size, bytes=traffic(g, x, mean, inv_std, weight, bias))
    return parameters + Count(flops=x.size, bytes=traffic(scale, x)) if operation.needs_input_grad[0] else parameters
