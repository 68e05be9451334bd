"""Cross-entropy."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.softmax import cross_entropy, cross_entropy_grad


class CrossEntropy(Function):
    """Mean of -log softmax(logits)[target]: logits (N, C), targets (N,) of class numbers -> a scalar, in nats."""

    @staticmethod
    def forward(ctx: Context, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        losses, top, total = cross_entropy(logits, targets)
        ctx.save_for_backward(logits, targets, top, total)
        return np.asarray(losses.mean(), dtype=logits.dtype)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None]:
        # d/dlogits = (softmax - one_hot(target)) / N
        logits, targets, top, total = ctx.saved_tensors
        share = np.full(len(targets), grad_output / len(targets), logits.dtype)
        return (cross_entropy_grad(share, logits, targets, top, total), None)
