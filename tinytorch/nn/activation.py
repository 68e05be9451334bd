"""Layers without weights: ReLU, GELU, dropout."""

from __future__ import annotations

import numpy as np

from tinytorch.nn import init
from tinytorch.nn.module import Module
from tinytorch.ops import activation
from tinytorch.tensor import Tensor


class ReLU(Module):
    """max(x, 0), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return x.relu()


class GELU(Module):
    """x Phi(x), element by element, with the tanh approximation: PyTorch's `nn.GELU(approximate="tanh")`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return x.gelu()


class Dropout(Module):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p); else do nothing.

    Source: Srivastava et al., "Dropout", JMLR 15 (2014). A ValueError if p lies outside of 0 ... 1.
    """

    def __init__(self, p: float = 0.5, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"a dropout probability lies in 0 ... 1, not {p}")
        self.p, self.rng = p, init.generator(rng)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        if not self.training or self.p == 0.0:
            return x
        return activation.Dropout.apply(x, self.p, self.rng)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"
