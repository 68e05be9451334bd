"""A GPT's step in generation as one operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function, V
from tinytorch.kernels.decoding import DecoderWeights, decoder_step


class DecoderStep(Function):
    """The scores of the next token (B, 1, V), for one new token of each sequence (B, 1), and a longer cache.

    There is no derivative: none flows into a cache.
    """

    @staticmethod
    def forward(
        ctx: Context, tokens: np.ndarray, ids: np.ndarray, weights: DecoderWeights, keys: np.ndarray,
        values: np.ndarray, heads: int, past: int, starts: np.ndarray, eps: float,
    ) -> np.ndarray:  # fmt: skip
        return decoder_step(tokens, ids[:, 0], weights, keys, values, heads, past, starts, eps)[:, None]


def next_scores(tokens: V, ids: np.ndarray, *others: Any) -> V:
    """Compute `DecoderStep`: as an operation while somebody watches, else with nothing around it."""
    if Function.watched:
        scores: V = DecoderStep.apply(tokens, ids, *others)
        return scores
    return tokens._like(DecoderStep.forward(Context(), tokens.data, ids, *others))
