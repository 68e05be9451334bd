"""A linear layer in whole numbers, whose input is rounded row by row when it comes."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.dynamic import Product, dynamic_linear


class DynamicLinear(Function):
    """r(x) W^T + b over the last axis: x (..., in) -> (..., out); see `tinytorch.kernels.dynamic` for the rounding r.

    W is `weight` int8 (out, in) times `weight_scale` (out,), and `product` what multiplies with it. There is no
    derivative: rounding has none.
    """

    @staticmethod
    def forward(
        ctx: Context, x: np.ndarray, weight: np.ndarray, weight_scale: np.ndarray, bias: np.ndarray | None,
        product: Product,
    ) -> np.ndarray:  # fmt: skip
        return dynamic_linear(x.reshape(-1, x.shape[-1]), product, bias).reshape(*x.shape[:-1], len(weight))
