"""A transformer block's step in generation as one operation."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.decoding import BlockWeights, decoder_step


class DecoderStep(Function):
    """A block's result for one new position of each sequence, (B, 1, C) -> the same shape, and a longer cache.

    There is no derivative: none flows into a cache.
    """

    @staticmethod
    def forward(
        ctx: Context, x: np.ndarray, weights: BlockWeights, keys: np.ndarray, values: np.ndarray, heads: int, past: int,
        starts: np.ndarray | None, eps: float,
    ) -> np.ndarray:  # fmt: skip
        return decoder_step(x[:, 0], weights, keys, values, heads, past, starts, eps)[:, None]
