"""Layers for images of shape (N, C, H, W): convolution and pooling."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels.conv import output_size
from tinytorch.nn import init
from tinytorch.nn.module import Module, Parameter
from tinytorch.ops import image
from tinytorch.tensor import Tensor


def _check_sizes(layer: Module, kernel_size: int, stride: int, padding: int = 0) -> None:
    if kernel_size < 1 or stride < 1 or padding < 0:
        name = type(layer).__name__
        raise ValueError(f"{name}: kernel_size {kernel_size}, stride {stride}, padding {padding} make no windows")


def check_images(layer: Module, x: Tensor, channels: int | None, kernel: int, padding: int) -> None:
    """Raise a ValueError if x is not (N, channels, H, W), of any `channels` if None, or a window does not fit in."""
    name = type(layer).__name__
    if x.ndim != 4:
        raise ValueError(f"{name} takes images (N, C, H, W), got shape {x.shape}")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"{name} takes {channels} channels, got shape {x.shape}")
    if min(output_size(size, kernel, 1, padding) for size in x.shape[2:]) < 1:
        raise ValueError(f"{name}: a window of {kernel} x {kernel} does not fit in shape {x.shape}, padding {padding}")


class Conv2d(Module):
    """Cross-correlation with square windows: (N, in_channels, H, W) -> (N, out_channels, Ho, Wo).

    Ho = (H + 2 padding - kernel_size) // stride + 1, and so for Wo. `weight` has shape
    (out_channels, in_channels, kernel_size, kernel_size), `bias` (out_channels,) or is None.

    Raises
    ------
    ValueError
        If in_channels, kernel_size or stride is below 1, or padding below 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(self, kernel_size, stride, padding)
        rng = init.generator(rng)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        fan_in = in_channels * kernel_size**2
        self.weight = init.uniform_fan_in((out_channels, in_channels, kernel_size, kernel_size), fan_in, rng)
        self.bias: Parameter | None = init.uniform_fan_in((out_channels,), fan_in, rng) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve. A ValueError names the shape that does not fit."""
        check_images(self, x, self.in_channels, self.kernel_size, self.padding)
        return image.Conv2d.apply(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, bias={self.bias is not None}"
        )


class _Pool2d(Module):
    function: type[image.MaxPool2d] | type[image.AvgPool2d]

    def __init__(self, kernel_size: int, stride: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        _check_sizes(self, self.kernel_size, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Pool. A ValueError names the shape that does not fit."""
        check_images(self, x, None, self.kernel_size, 0)
        return self.function.apply(x, self.kernel_size, self.stride)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class MaxPool2d(_Pool2d):
    """The largest element of every square window: (N, C, H, W) -> (N, C, Ho, Wo); `stride` is its size unless given.

    A ValueError if one is below 1.
    """

    function = image.MaxPool2d


class AvgPool2d(_Pool2d):
    """The mean of every square window: (N, C, H, W) -> (N, C, Ho, Wo); `stride` is its size unless given.

    A ValueError if one is below 1.
    """

    function = image.AvgPool2d


class Flatten(Module):
    """Join all axes but the first: (N, C, H, W) -> (N, C*H*W)."""

    def forward(self, x: Tensor) -> Tensor:
        """View x as rows."""
        return x.flatten(1)
