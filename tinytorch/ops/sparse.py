"""Layers without their zeros as one operation: a network for inference, or a layer, whose input gets a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.sparse import Network


class SparseLayers(Function):
    """Layers one after another, each a product with those weights that are stored; see `tinytorch.kernels.sparse`.

    `layers` is `network.described`. The weights are fixed. One layer alone, without ReLU and pooling, has a derivative.
    """

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, layers: tuple[Any, ...], network: Network) -> np.ndarray:
        ctx.save_for_backward(layers, network)
        return network(x)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # dx = dy W; of a convolution, each MAC of the forward turned round
        _, network = ctx.saved_tensors
        return network.gradient(grad_output), None, None
