"""Steps of optimizers: so many FLOPs for each number that is trained, and the arrays of its state."""

from __future__ import annotations

from tinytorch.optim import SGD, AdamW, Optimizer
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.operation import Operation


def _step(optimizer: type[Optimizer], flops: int) -> None:
    """Register a step that reads gradients and changes parameters and state in place: each counts once."""

    @counts(optimizer, "optimizer")
    def _(operation: Operation) -> Count:
        size = sum(parameter.size for parameter in operation.inputs)
        return Count(flops=flops * size, bytes=(2 + len(optimizer.slots)) * traffic(operation.inputs))


_step(SGD, 6)  # v <- momentum v + (grad + decay p), p <- p - lr v: six also where a factor is zero
# m <- m + (1 - b1) (g - m) three; s <- s + (1 - b2) (g g - s) four; p (1 - lr decay) one; m' = m / (1 - b1^t) and
# s' = s / (1 - b2^t) two; p - lr m' / (sqrt(s') + eps) five
_step(AdamW, 15)
