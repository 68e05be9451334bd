"""Batch norm for images and layer norm for vectors."""

from __future__ import annotations

import numpy as np

from tinytorch.nn.module import Module, Parameter
from tinytorch.ops import normalization
from tinytorch.tensor import Tensor


class LayerNorm(Module):
    """Normalize each vector of the last axis, of `normalized_shape` elements, then scale and shift it.

    (..., normalized_shape) -> the same shape; `weight` and `bias` are (normalized_shape,). `eps` is added to the
    variance.

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), section 3.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape, self.eps = normalized_shape, eps
        self.weight = Parameter(np.ones(normalized_shape, np.float32))
        self.bias = Parameter(np.zeros(normalized_shape, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize. A ValueError names both sizes if the last axis differs."""
        if x.ndim == 0 or x.shape[-1] != self.normalized_shape:
            raise ValueError(f"LayerNorm takes vectors of {self.normalized_shape} elements, got shape {x.shape}")
        return normalization.LayerNorm.apply(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.normalized_shape}, eps={self.eps}"


class BatchNorm2d(Module):
    """Normalize each channel of (N, C, H, W) over batch and pixels, then scale and shift it.

    In training it uses the batch's statistics and moves `running_mean` and `running_var` (C,) by `momentum` towards
    them, the variance unbiased, as in PyTorch; in evaluation it uses those. `weight` and `bias` are (C,) too, C being
    `num_features`; `eps` is added to the variance.

    Source: Ioffe & Szegedy, "Batch normalization" (2015), algorithms 1 and 2.
    """

    running_mean: np.ndarray
    running_var: np.ndarray

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize. A ValueError names the shape if it has not `num_features` channels, or nothing to learn from."""
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ValueError(f"BatchNorm2d takes images (N, {self.num_features}, H, W), got shape {x.shape}")
        if self.training:
            if 0 in x.shape:
                raise ValueError(f"BatchNorm2d cannot learn statistics from nothing, got shape {x.shape}")
            running = (self.running_mean, self.running_var, self.momentum)
            return normalization.BatchNorm2d.apply(x, self.weight, self.bias, self.eps, running)
        statistics = (self.running_mean, self.running_var)
        return normalization.FrozenBatchNorm2d.apply(x, self.weight, self.bias, self.eps, statistics)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
