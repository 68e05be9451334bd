"""`Linear` and `Embedding`: the two layers that hold a table of weights."""

from __future__ import annotations

import numpy as np

from tinytorch.nn import init
from tinytorch.nn.module import Module, Parameter
from tinytorch.ops import embedding as embedding_ops
from tinytorch.ops import linear as linear_ops
from tinytorch.tensor import Tensor


class Linear(Module):
    """y = x W^T + b over the last axis: (..., in_features) -> (..., out_features).

    `weight` has shape (out_features, in_features), `bias` (out_features,) or is None. A ValueError if `in_features` is
    below 1.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        rng = init.generator(rng)
        self.in_features, self.out_features = in_features, out_features
        self.weight = init.uniform_fan_in((out_features, in_features), in_features, rng)
        self.bias: Parameter | None = init.uniform_fan_in((out_features,), in_features, rng) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Multiply. A ValueError names both sizes if the last axis of x is not `in_features`."""
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"Linear takes inputs of {self.in_features} features, got shape {x.shape}")
        return linear_ops.Linear.apply(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A vector for each of `num_embeddings` numbers: ids (...) -> (..., embedding_dim).

    `weight` has shape (num_embeddings, embedding_dim); it begins normal with standard deviation 1, as PyTorch's does.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal((num_embeddings, embedding_dim), 1.0, init.generator(rng))

    def forward(self, ids: Tensor | np.ndarray) -> Tensor:
        """Look the rows up. Errors are those of `check`."""
        array = ids.data if isinstance(ids, Tensor) else np.asarray(ids)
        self.check(array)
        return embedding_ops.Embedding.apply(self.weight, array)

    def check(self, ids: np.ndarray) -> None:
        """Raise a TypeError if `ids` are no integers, an IndexError that names the first that is not in the table."""
        if ids.dtype.kind not in "iu":
            raise TypeError(f"Embedding takes integers, not {ids.dtype}")
        if ids.size == 1:  # as in each step of generation: a number is looked at much faster than an array
            smallest = largest = ids.item()
        else:
            smallest, largest = ids.min(initial=0), ids.max(initial=0)
        if smallest < 0 or largest >= self.num_embeddings:
            bad = ids[(ids < 0) | (ids >= self.num_embeddings)].flat[0]
            raise IndexError(f"id {bad} is outside of the table's 0 ... {self.num_embeddings - 1}")

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}"
