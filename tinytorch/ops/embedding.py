"""Rows of a table, looked up by number."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function


class Embedding(Function):
    """weight[ids]: weight (V, D), ids of any shape -> (*ids.shape, D)."""

    @staticmethod
    def forward(ctx: Context, weight: np.ndarray, ids: np.ndarray) -> np.ndarray:
        ctx.save_for_backward(weight.shape, ids)
        return weight[ids]

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None]:
        # a row's gradient is the sum over the places where it was looked up
        (rows, width), ids = ctx.saved_tensors
        flat_ids, flat = ids.reshape(-1), grad_output.reshape(-1, width)
        order = np.argsort(flat_ids, kind="stable")  # equal ids side by side: reduceat is far faster than add.at
        found, starts = np.unique(flat_ids[order], return_index=True)
        grad = np.zeros((rows, width), grad_output.dtype)
        if len(found):
            grad[found] = np.add.reduceat(flat[order], starts, axis=0)
        return (grad, None)
