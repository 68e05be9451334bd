"""The layers of quantization-aware training, whose rounding passes gradients.

What flows between them are the codes of the integer model, less their zero point, held in float32: whole numbers, whose
products and sums float32 gives exactly up to 2^24. So the model that is trained computes what the converted one will,
code for code. Only its backward pass pretends: `FakeQuantize` has the derivative of no rounding.

Sources: Bengio et al., "Estimating or propagating gradients through stochastic neurons for conditional computation"
(2013), section 4, for the derivative; Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference" (2018), section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.autograd import Context, Function
from tinytorch.nn.finite import check_finite
from tinytorch.nn.fuse import fold_batch_norm
from tinytorch.nn.image import check_images
from tinytorch.ops import image, linear
from tinytorch.quantization.affine import SMALLEST_NORMAL, code_range
from tinytorch.quantization.blocks import Block
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d, multipliers
from tinytorch.quantization.tensor import QParams
from tinytorch.tensor import Tensor

_LARGEST_BIAS = 1 << 23  # half of the whole numbers that float32 holds: the other half is for the products


class FakeQuantize(Function):
    """round(clamp(x, low, high)): x, counted in steps, becomes a code, though one that is still a float."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, low: float, high: float) -> np.ndarray:
        ctx.save_for_backward((low <= x) & (x <= high))
        return np.rint(np.clip(x, np.float32(low), np.float32(high)))

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # Rounding has the derivative 0 almost everywhere, from which nothing learns. The straight-through estimator
        # takes that of the clamp alone: 1 from low to high, 0 beyond.
        (inside,) = ctx.saved_tensors
        return grad_output * inside, None, None


class QATQuantize(nn.Module):
    """Numbers to codes: where images come in, and behind layers that stay in float32."""

    def __init__(self, qparams: QParams) -> None:
        super().__init__()
        self.qparams = qparams

    def forward(self, x: Tensor) -> Tensor:
        """Round x (N, ...)."""
        scale, zero_point, _ = self.qparams
        return FakeQuantize.apply(x / np.float32(scale), -zero_point, self.qparams.highest - zero_point)

    def extra_repr(self) -> str:
        """Show what the codes mean."""
        return f"qparams={self.qparams}"


class QATDequantize(nn.Module):
    """Codes to numbers: before layers that stay in float32, and at the end."""

    def __init__(self, qparams: QParams) -> None:
        super().__init__()
        self.qparams = qparams

    def forward(self, codes: Tensor) -> Tensor:
        """Multiply codes (N, ...) by their scale."""
        return codes * np.float32(self.qparams.scale)

    def extra_repr(self) -> str:
        """Show what the codes mean."""
        return f"qparams={self.qparams}"


class _QATLayer(nn.Module):
    """What the two have in common: weight and bias in float32, which training changes, and the codes they round to.

    Attributes
    ----------
    weight, bias
        Parameters in the float layer's shapes, with the batch norm behind it folded into them.
    step
        float64 (out,): the scale of a channel's codes over its largest |weight|, or the layer's. It stays what the
        weight's observer chose at the start, so that scales follow the weights.
    input_qparams, qparams, weight_bits, relu
        As those of `QuantizedConv2d` and `QuantizedLinear`.
    """

    step: np.ndarray

    def __init__(self, weight: np.ndarray, layer: QuantizedConv2d | QuantizedLinear, per_channel: bool) -> None:
        super().__init__()
        self.input_qparams, self.qparams = layer.input_qparams, layer.qparams
        self.weight_bits, self.relu, self.per_channel = layer.weight_bits, layer.relu, per_channel
        unit = np.float64(layer.input_qparams.scale) * layer.weight_scale
        self.weight = nn.Parameter(weight.copy())
        self.bias = nn.Parameter((layer.bias * unit).astype(np.float32))  # with its correction, if there was one
        largest = self._largest()
        finest = np.full(len(largest), 1 / self._highest)
        self.register_buffer("step", np.divide(layer.weight_scale, largest, out=finest, where=largest > 0))

    @property
    def _highest(self) -> int:
        return code_range(self.weight_bits, symmetric=True)[1]

    def _largest(self) -> np.ndarray:
        """Return the largest |weight| of each channel, or (out,) times the layer's: float64."""
        rows = np.abs(self.weight.data.reshape(len(self.weight.data), -1).astype(np.float64))
        return rows.max(axis=1) if self.per_channel else np.full(len(rows), rows.max())

    def _codes(self) -> tuple[Tensor, Tensor, np.ndarray]:
        """Return the codes of weight and bias, as floats, and the scale float32 (out,) of the weight's."""
        before = np.float64(self.input_qparams.scale)
        needed = np.abs(self.bias.data) / (before * _LARGEST_BIAS)
        scale = np.maximum(self.step * self._largest(), needed).astype(np.float32)
        scale = np.maximum(scale, SMALLEST_NORMAL)
        unit = np.maximum((before * scale).astype(np.float32), SMALLEST_NORMAL)
        weight = self.weight / scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        return (
            FakeQuantize.apply(weight, -self._highest, self._highest),
            FakeQuantize.apply(self.bias / unit, -2 * _LARGEST_BIAS, 2 * _LARGEST_BIAS),
            scale,
        )

    def _requantize(self, sums: Tensor, scale: np.ndarray) -> Tensor:
        """Return the codes, or numbers, of sums (N, out, ...)."""
        factor = multipliers(self.input_qparams, scale, self.qparams)
        x = sums * factor.reshape(-1, *[1] * (sums.ndim - 2))
        if self.qparams is None:
            return x
        zero_point = self.qparams.zero_point
        return FakeQuantize.apply(x, 0 if self.relu else -zero_point, self.qparams.highest - zero_point)

    def _numbers(self) -> dict[str, Any]:
        """Return what a layer of whole numbers is made of. A ValueError if a weight or bias is not finite."""
        for name, parameter in (("weight", self.weight), ("bias", self.bias)):
            check_finite(parameter.data, f"the {name}", "prepare anew, train with a lower lr")
        weight, bias, scale = self._codes()
        return {
            "weight": weight.data.astype(np.int8), "weight_scale": scale, "bias": bias.data.astype(np.int32),
            "input_qparams": self.input_qparams, "qparams": self.qparams,
            "weight_bits": self.weight_bits, "relu": self.relu,
        }  # fmt: skip

    def extra_repr(self) -> str:
        """Show shape and meaning."""
        return f"weight={self.weight.shape}, weight_bits={self.weight_bits}, relu={self.relu}, qparams={self.qparams}"


class QATConv2d(_QATLayer):
    """What a `QuantizedConv2d` computes, on codes held in float32: (N, C, H, W) -> (N, out, Ho, Wo).

    `weight` and `bias` are trained: float32, in the shapes of the float layer, whose batch norm is folded into them.
    """

    def __init__(self, block: Block, layer: QuantizedConv2d, per_channel: bool) -> None:
        assert isinstance(block.core, nn.Conv2d)
        super().__init__(fold_batch_norm(block.core, block.norm)[0], layer, per_channel)
        self.stride, self.padding, self.pool = layer.stride, layer.padding, layer.pool

    def forward(self, codes: Tensor) -> Tensor:
        """Convolve, pool, and round. A ValueError names the shape that does not fit."""
        check_images(self, codes, self.weight.shape[1], self.weight.shape[2], self.padding)
        weight, bias, scale = self._codes()
        sums = image.Conv2d.apply(codes, weight, bias, self.stride, self.padding)
        if self.pool > 1:
            sums = image.MaxPool2d.apply(sums, self.pool, self.pool)
        return self._requantize(sums, scale)

    def convert(self) -> QuantizedConv2d:
        """Return the layer in whole numbers. A ValueError if a weight or bias is NaN or infinite."""
        return QuantizedConv2d(**self._numbers(), stride=self.stride, padding=self.padding, pool=self.pool)


class QATLinear(_QATLayer):
    """What a `QuantizedLinear` computes, on codes held in float32: (N, ...) -> (N, out).

    `weight` and `bias` are trained: float32, in the shapes of the float layer.
    """

    def __init__(self, block: Block, layer: QuantizedLinear, per_channel: bool) -> None:
        assert isinstance(block.core, nn.Linear)
        super().__init__(block.core.weight.data, layer, per_channel)

    def forward(self, codes: Tensor) -> Tensor:
        """Multiply, and round. A ValueError names the shapes that do not fit."""
        weight, bias, scale = self._codes()
        return self._requantize(linear.Linear.apply(codes.flatten(1), weight, bias), scale)

    def convert(self) -> QuantizedLinear:
        """Return the layer in whole numbers. A ValueError if a weight or bias is NaN or infinite."""
        return QuantizedLinear(**self._numbers())


class QATPool2d(nn.Module):
    """What a `QuantizedPool2d` computes, on codes held in float32: (N, C, H, W) -> (N, C, Ho, Wo)."""

    def __init__(self, layer: QuantizedPool2d) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.mean = layer.kernel_size, layer.stride, layer.mean
        self.qparams: QParams = layer.input_qparams

    def forward(self, codes: Tensor) -> Tensor:
        """Pool, and round the mean. A ValueError names the shape that does not fit."""
        check_images(self, codes, None, self.kernel_size, 0)
        if not self.mean:
            return image.MaxPool2d.apply(codes, self.kernel_size, self.stride)
        zero_point = np.float32(self.qparams.zero_point)  # back in, so that the same halves go up
        mean = image.AvgPool2d.apply(codes + zero_point, self.kernel_size, self.stride)
        return FakeQuantize.apply(mean, 0, self.qparams.highest) - zero_point

    def convert(self) -> QuantizedPool2d:
        """Return the layer in whole numbers."""
        return QuantizedPool2d(self.kernel_size, self.stride, self.mean, self.qparams)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, mean={self.mean}"
