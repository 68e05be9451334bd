"""Layers of whole numbers: weights are stored as int8, codes come in and codes go out, sums have 32 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from tinytorch import nn
from tinytorch.kernels import int8
from tinytorch.nn.fuse import fold_batch_norm
from tinytorch.ops.integers import integer_network
from tinytorch.quantization.affine import SMALLEST_NORMAL, dequantize, quantize_per_channel, quantize_per_tensor
from tinytorch.quantization.observers import MinMaxObserver, Observer, qparams_per_channel
from tinytorch.quantization.tensor import QParams, QuantizedTensor
from tinytorch.tensor import Tensor

_LARGEST_BIAS = 1 << 30  # half of what 32 bits hold: the other half is for the products


def quantize_weight(
    weight: np.ndarray, bits: int, per_channel: bool, observer: Callable[..., Observer]
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes int8 of weight's shape (O, ...) and their scales (O,), all equal unless `per_channel`.

    Codes are symmetric: a zero point would have to be multiplied with every sum of activations.
    """
    if per_channel:
        scales, zeros = qparams_per_channel(weight, observer, axis=0, bits=bits)
        return quantize_per_channel(weight, scales, zeros, 0, bits=bits), scales
    seen = observer(bits=bits, symmetric=True)
    seen.observe(weight)
    scale, zero_point = seen.qparams()
    codes = quantize_per_tensor(weight, scale, zero_point, bits=bits, symmetric=True)
    return codes, np.full(len(weight), scale, np.float32)


def multipliers(before: QParams, weight_scale: np.ndarray, after: QParams | None) -> np.ndarray:
    """Return what sums are multiplied by to become codes, or, if `after` is None, numbers: float32 (O,)."""
    exact = np.float64(before.scale) * weight_scale.astype(np.float64) / (1.0 if after is None else after.scale)
    return np.maximum(exact.astype(np.float32), SMALLEST_NORMAL)


def _spread(mean: np.ndarray, inputs: int) -> np.ndarray:
    """Return the mean of each input, of channels that are flattened: all of a channel's have its mean."""
    return np.repeat(mean, inputs // len(mean))


class _OnCodes(nn.Module):
    """A layer on codes: its kernels are prepared once for each shape of input."""

    input_qparams: QParams
    qparams: QParams | None

    def __init__(self) -> None:
        super().__init__()
        self.training = False
        self._networks: dict[tuple[int, ...], int8.Network] = {}

    def spec(self) -> int8.Layer:
        """Return the layer as the kernels take it."""
        raise NotImplementedError

    def forward(self, x: QuantizedTensor) -> QuantizedTensor | Tensor:
        """Compute the codes of the output from those of the input.

        Raises
        ------
        TypeError
            If x is no QuantizedTensor: round it to codes first.
        ValueError
            If x's scale or zero point are not those that the layer was made for, or its shape does not fit.
        """
        if not isinstance(x, QuantizedTensor):
            raise TypeError(f"{type(self).__name__} takes a QuantizedTensor, not {type(x).__name__}")
        if x.qparams != self.input_qparams:
            raise ValueError(f"{type(self).__name__} is made for codes of {self.input_qparams}, got {x.qparams}")
        if x.shape[1:] not in self._networks:
            self._networks[x.shape[1:]] = int8.Network([self.spec()], x.shape[1:])
        out = integer_network(x.codes, self._networks[x.shape[1:]])
        return Tensor(out) if self.qparams is None else QuantizedTensor(out, self.qparams)

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy arrays in, as any module does, and prepare the kernels anew."""
        super().load_state_dict(state)
        self._networks.clear()


class _QuantizedLayer(_OnCodes):
    """What the two have in common.

    Attributes
    ----------
    weight
        Codes int8, symmetric, in the shape of the float layer's weight.
    weight_scale
        float32 (out,): what code 1 stands for in each output channel.
    bias
        int32 (out,), in units of input scale times weight scale.
    input_qparams, qparams
        The meaning of the codes that come in and of those that go out.
    weight_bits
        Codes of the weight reach over so many bits; each takes a byte whatever it is.
    relu
        Whether numbers below zero become zero.
    """

    def __init__(
        self,
        weight: np.ndarray,
        weight_scale: np.ndarray,
        bias: np.ndarray,
        input_qparams: QParams,
        qparams: QParams | None,
        weight_bits: int = 8,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("bias", bias)
        self.input_qparams, self.qparams = QParams(*input_qparams), None if qparams is None else QParams(*qparams)
        self.weight_bits, self.relu = weight_bits, relu

    weight: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray

    @classmethod
    def _numbers(
        cls,
        weight: np.ndarray,
        bias: np.ndarray,
        input_qparams: QParams,
        weight_bits: int,
        per_channel: bool,
        weight_observer: Callable[..., Observer],
        input_mean: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """Return weight, weight_scale and bias in whole numbers."""
        codes, scale = quantize_weight(weight, weight_bits, per_channel, weight_observer)
        if input_mean is not None:
            lost = weight - dequantize(codes, scale, np.zeros(len(scale), np.int32), axis=0)
            bias = bias + lost.reshape(*lost.shape[:2], -1).sum(axis=2) @ _spread(input_mean, lost.shape[1])
        scale = np.where(codes.reshape(len(codes), -1).any(axis=1), scale, SMALLEST_NORMAL)  # the bias is all there is
        # where weights are tiny beside the bias, the bias decides: its code has to fit into 32 bits
        needed = np.abs(bias.astype(np.float64)) / (np.float64(input_qparams[0]) * _LARGEST_BIAS)
        for o in np.flatnonzero(needed > scale):
            scale[o] = np.float32(needed[o] * (1 + 1e-6))
            codes[o] = quantize_per_tensor(weight[o], scale[o], 0, bits=weight_bits, symmetric=True)
        unit = np.float64(input_qparams[0]) * scale.astype(np.float64)
        return {"weight": codes, "weight_scale": scale, "bias": np.rint(bias / unit).astype(np.int32)}

    def _spec(self) -> dict[str, Any]:
        """Return what `tinytorch.kernels.int8` wants to know."""
        zero_point, highest = (0, 255) if self.qparams is None else (self.qparams.zero_point, self.qparams.highest)
        return {
            "weight": self.weight,
            "bias": self.bias,
            "multiplier": multipliers(self.input_qparams, self.weight_scale, self.qparams),
            "input_zero_point": self.input_qparams.zero_point,
            "zero_point": zero_point,
            "lowest": zero_point if self.relu else 0,
            "highest": highest,
        }

    def extra_repr(self) -> str:
        """Show shape and meaning."""
        return f"weight={self.weight.shape}, weight_bits={self.weight_bits}, relu={self.relu}, qparams={self.qparams}"


class QuantizedConv2d(_QuantizedLayer):
    """A convolution on codes, with what stood behind it: batch norm in its weights, ReLU, and max pooling by `pool`."""

    def __init__(self, *, stride: int = 1, padding: int = 0, pool: int = 1, **numbers: Any) -> None:
        super().__init__(**numbers)
        self.stride, self.padding, self.pool = stride, padding, pool

    @classmethod
    def from_float(
        cls,
        conv: nn.Conv2d,
        input_qparams: QParams,
        qparams: QParams,
        *,
        norm: nn.BatchNorm2d | None = None,
        relu: bool = False,
        pool: int = 1,
        weight_bits: int = 8,
        per_channel: bool = True,
        weight_observer: Callable[..., Observer] = MinMaxObserver,
        input_mean: np.ndarray | None = None,
    ) -> Self:
        """Quantize a convolution, and the batch norm behind it, which are left as they are.

        Parameters
        ----------
        input_qparams, qparams
            The meaning of the codes that will come in, and of those that shall go out.
        relu, pool
            What else to do: zero for numbers below zero, the largest of windows of pool x pool.
        weight_bits, per_channel, weight_observer
            How the weight is quantized; the scale of each output channel is its own, or one for all.
        input_mean
            The mean of each input channel, if the bias shall make up for what rounding the weights does to the mean of
            the output. Source: Nagel et al., "Data-free quantization through weight equalization and bias correction"
            (2019), section 4.2.

        Raises
        ------
        ValueError
            If a weight is NaN or infinite, or channels do not fit.
        """
        weight, bias = fold_batch_norm(conv, norm)
        numbers = cls._numbers(weight, bias, input_qparams, weight_bits, per_channel, weight_observer, input_mean)
        return cls(
            **numbers, input_qparams=input_qparams, qparams=qparams, weight_bits=weight_bits, relu=relu,
            stride=conv.stride, padding=conv.padding, pool=pool,
        )  # fmt: skip

    def spec(self) -> int8.Convolution:
        """Return the layer as the kernels take it."""
        return int8.Convolution(**self._spec(), stride=self.stride, padding=self.padding, pool=self.pool)


class QuantizedLinear(_QuantizedLayer):
    """A linear layer on codes. Without `qparams` its output is numbers, a float32 Tensor: a model's last layer."""

    @classmethod
    def from_float(
        cls,
        linear: nn.Linear,
        input_qparams: QParams,
        qparams: QParams | None = None,
        *,
        relu: bool = False,
        weight_bits: int = 8,
        per_channel: bool = True,
        weight_observer: Callable[..., Observer] = MinMaxObserver,
        input_mean: np.ndarray | None = None,
    ) -> Self:
        """Quantize a linear layer, which is left as it is: see `QuantizedConv2d.from_float`.

        A TypeError if it is no `nn.Linear`; a ValueError if a weight is NaN or infinite, or ReLU is asked of a layer
        whose output is numbers.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"QuantizedLinear is made of an nn.Linear, not {type(linear).__name__}")
        if relu and qparams is None:
            raise ValueError("ReLU is done to codes: give the qparams of the output")
        bias = np.zeros(linear.out_features, np.float32) if linear.bias is None else linear.bias.data
        how = weight_bits, per_channel, weight_observer, input_mean
        numbers = cls._numbers(linear.weight.data, bias, input_qparams, *how)
        return cls(**numbers, input_qparams=input_qparams, qparams=qparams, weight_bits=weight_bits, relu=relu)

    def spec(self) -> int8.Linear:
        """Return the layer as the kernels take it."""
        return int8.Linear(**self._spec(), floats=self.qparams is None)


class QuantizedPool2d(_OnCodes):
    """Pooling of codes: the largest of each window, or (`mean`) their mean, rounded. Both keep the scale."""

    def __init__(self, kernel_size: int, stride: int, mean: bool, qparams: QParams) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.mean = kernel_size, stride, mean
        self.input_qparams = self.qparams = QParams(*qparams)

    def spec(self) -> int8.Pooling:
        """Return the layer as the kernels take it."""
        return int8.Pooling(self.kernel_size, self.stride, self.mean)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, mean={self.mean}"
