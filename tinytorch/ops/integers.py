"""Layers in whole numbers as one operation: a network for inference, or a layer of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.int8 import Network, numbers


class IntegerLayers(Function):
    """Layers one after another on codes of 8 bits; see `tinytorch.kernels.int8` for what each computes.

    `layers` is `network.described`. x is codes, or numbers that are rounded to codes first; so is the result, whose
    codes become numbers if their scale and zero point are given as `meaning`. There is no derivative: rounding has none.
    """

    @staticmethod
    def forward(
        ctx: Context, x: np.ndarray, layers: tuple[Any, ...], network: Network,
        meaning: tuple[float, int] | None = None,
    ) -> np.ndarray:  # fmt: skip
        out = network(x)
        return out if meaning is None else numbers(out, np.float32(meaning[0]), meaning[1])
