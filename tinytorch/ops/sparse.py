"""Layers without their zeros: a network for inference as one operation, and a layer, whose input gets a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function, Variable
from tinytorch.kernels.sparse import Network


class SparseLayer(Function):
    """A product of x (N, ...) with the weights that are stored, and its bias; see `tinytorch.kernels.sparse`.

    `network` is of this layer alone, without ReLU and pooling, and `layers` is `network.described`. The weights are
    fixed: the gradient goes to x.
    """

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, layers: tuple[Any, ...], network: Network) -> np.ndarray:
        ctx.save_for_backward(layers, network)
        return network(x)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # dx = dy W; of a convolution, each multiplication of the forward turned round
        _, network = ctx.saved_tensors
        return network.gradient(grad_output), None, None


class SparseNetwork(Function):
    """Such layers one after another, with ReLU and pooling in them. There is no derivative: it is for inference."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, layers: tuple[Any, ...], network: Network) -> np.ndarray:
        return network(x)


def sparse_network(x: np.ndarray, network: Network) -> np.ndarray:
    """Compute `SparseNetwork` of an array: as an operation while somebody watches, else with nothing around it."""
    if Function.watched:
        out: np.ndarray = SparseNetwork.apply(Variable(x), network.described, network).data
        return out
    return network(x)
