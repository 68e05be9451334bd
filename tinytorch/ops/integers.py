"""Layers in whole numbers as one operation: a network for inference, or a layer of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function, Variable
from tinytorch.kernels.int8 import Network, numbers


class IntegerNetwork(Function):
    """Layers one after another on codes of 8 bits; see `tinytorch.kernels.int8` for what each computes.

    `layers` is `network.described`. x is codes, or numbers that are rounded to codes first. Codes that come out become
    numbers if their scale and zero point are given as `meaning`. There is no derivative: rounding has none.
    """

    @staticmethod
    def forward(
        ctx: Context, x: np.ndarray, layers: tuple[Any, ...], network: Network,
        meaning: tuple[float, int] | None = None,
    ) -> np.ndarray:  # fmt: skip
        return _computed(x, network, meaning)


def integer_network(x: np.ndarray, network: Network, meaning: tuple[float, int] | None = None) -> np.ndarray:
    """Compute `IntegerNetwork` of an array: as an operation while somebody watches, else with nothing around it.

    What an operation does besides computing takes microseconds, as long as a layer of a small network.
    """
    if Function.watched:
        out: np.ndarray = IntegerNetwork.apply(Variable(x), network.described, network, meaning).data
        return out
    return _computed(x, network, meaning)


def _computed(x: np.ndarray, network: Network, meaning: tuple[float, int] | None) -> np.ndarray:
    out = network(x)
    return out if meaning is None else numbers(out, np.float32(meaning[0]), meaning[1])
