"""What a forward pass of GPT costs, on paper: operations and bytes as functions of the sequence length.

One multiplication and one addition are two operations (FLOPs). Only matrix products are counted: the rest is far fewer
operations, though not always less time (softmax works on every score). Source: Kaplan et al., "Scaling laws for neural
language models" (2020), table 1. It has 2 T d for attention where this package computes 4 T d.
"""

from __future__ import annotations

from typing import NamedTuple

from tinytorch.nn.transformer import GPT


class ForwardFlops(NamedTuple):
    """FLOPs. `weights`: products of activations with weights. `attention`: products of activations with one another."""

    weights: int
    attention: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.attention


def forward_flops(model: GPT, length: int, past: int = 0, batch_size: int = 1) -> ForwardFlops:
    """Count the FLOPs of one forward pass.

    Parameters
    ----------
    length
        Positions that are computed.
    past
        Positions before them whose keys and values are cached. Every computed position is multiplied with all
        past + length keys, also with those that the mask hides: the package computes them too.
    batch_size
        Sequences that are computed together.
    """
    d = model.embed_dim
    attention, mlp = model.blocks[0].attention, model.blocks[0].mlp_ratio * d
    kv = attention.num_kv_heads * attention.head_dim  # keys and values of all heads that are not shared
    rows = batch_size * length
    block = 2 * rows * (d * (d + 2 * kv) + d * d + 2 * d * mlp)  # queries, keys, values; output; two layers of the MLP
    scores_and_mix = 2 * (2 * rows * (past + length) * d)  # Q K^T, then the weights times V
    head = 2 * rows * d * model.vocab_size
    return ForwardFlops(model.num_layers * block + head, model.num_layers * scores_and_mix)


def score_bytes(model: GPT, length: int, past: int = 0, batch_size: int = 1) -> int:
    """Return the bytes of one layer's attention weights, float32: (batch_size, num_heads, length, past + length)."""
    return 4 * batch_size * model.num_heads * length * (past + length)
