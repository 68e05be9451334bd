"""Cross-entropy."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.softmax import log_softmax


class CrossEntropy(Function):
    """Mean of -log softmax(logits)[target]: logits (N, C), targets (N,) of class numbers -> a scalar, in nats."""

    @staticmethod
    def forward(ctx: Context, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        log_p = log_softmax(logits)
        rows = np.arange(len(targets))
        ctx.save_for_backward(log_p, rows, targets)
        return np.asarray(-log_p[rows, targets].mean(), dtype=logits.dtype)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None]:
        # d/dlogits = (softmax - one_hot(target)) / N
        log_p, rows, targets = ctx.saved_tensors
        grad = np.exp(log_p)
        grad[rows, targets] -= 1.0
        grad *= grad_output / len(rows)
        return (grad, None)
