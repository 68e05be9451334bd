"""Nonlinearities, dropout, and what ends in a softmax."""

from __future__ import annotations

from tinytorch.ops import activation as ops
from tinytorch.ops.loss import CrossEntropy
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import each, each_gradient, result
from tinytorch.profiling.operation import Operation

GELU = 9  # for each element: 0.5 x (1 + tanh(c (x + a x x x)))
SOFTMAX = 5  # for each element: maximum, subtraction, exp, sum, division
SOFTMAX_GRAD = 4  # p (g - sum g p): a product and an addition for the sum, a subtraction, a product

counts(ops.ReLU, "forward")(each(1))
counts(ops.ReLU, "backward")(each_gradient(2))  # g (y > 0)
counts(ops.GELU, "forward")(each(GELU))
counts(ops.GELU, "backward")(each_gradient(19))  # g (0.5 (1 + t) + 0.5 x (1 - t t) c (1 + 3a x x)), t = tanh as above
counts(ops.Dropout, "forward")(each(3))  # x ((u >= p) / (1 - p)); drawing u is no arithmetic on elements
counts(ops.Dropout, "backward")(each_gradient(1))  # g keep
counts(ops.Softmax, "forward")(each(SOFTMAX))
counts(ops.Softmax, "backward")(each_gradient(SOFTMAX_GRAD))


@counts(CrossEntropy, "forward")
def _cross_entropy(operation: Operation) -> Count:
    """Mean of log sum_j exp(x_j - top) - (x_target - top): four for a score, two for a row, and their mean."""
    logits, targets = operation.inputs
    rows = targets.size
    return Count(flops=4 * logits.size + 2 * rows + rows + 1, bytes=traffic(logits, targets, result(operation)))


@counts(CrossEntropy, "backward")
def _cross_entropy_grad(operation: Operation) -> Count:
    """(exp(x - top) / total - one_hot) (g / N): the one is subtracted where it stands."""
    logits, targets = operation.saved[:2]
    moved = traffic(result(operation), operation.saved, logits)
    return Count(flops=4 * logits.size + targets.size + 1, bytes=moved)
