"""The transformer block."""

from __future__ import annotations

import numpy as np

from tinytorch.nn import init
from tinytorch.nn.activation import GELU
from tinytorch.nn.attention import MultiHeadAttention, PastKeyValue
from tinytorch.nn.linear import Linear
from tinytorch.nn.module import Module, Sequential
from tinytorch.nn.normalization import LayerNorm
from tinytorch.tensor import Tensor


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the MLP is `mlp_ratio` times as wide as x: (B, T, C) -> (B, T, C).

    Source: the order of the norms is that of Radford et al., "Language models are unsupervised multitask learners"
    (GPT-2, 2019), section 2.3. Heads and errors are those of `MultiHeadAttention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: int = 4,
        rng: np.random.Generator | None = None,
        num_kv_heads: int | None = None,
    ) -> None:
        super().__init__()
        rng = init.generator(rng)
        self.mlp_ratio = mlp_ratio
        self.norm1 = LayerNorm(embed_dim)
        self.attention = MultiHeadAttention(embed_dim, num_heads, rng=rng, num_kv_heads=num_kv_heads)
        self.norm2 = LayerNorm(embed_dim)
        self.mlp = Sequential(
            Linear(embed_dim, mlp_ratio * embed_dim, rng=rng), GELU(), Linear(mlp_ratio * embed_dim, embed_dim, rng=rng)
        )

    def forward(self, x: Tensor, past_key_value: PastKeyValue | None = None) -> Tensor:
        """Pass x (B, T, C) through attention and MLP; `past_key_value` as in `MultiHeadAttention.forward`."""
        x = x + self.attention(self.norm1(x), past_key_value)
        return x + self.mlp(self.norm2(x))
