"""Layers of whole numbers: convolution, linear layer and pooling from codes of 8 bits to codes of 8 bits.

A code c stands for the number (c - zero_point) * scale. Scales of input, weights and output are multiplied together
once, into one `multiplier` for each output channel; what is left to compute has no scales in it:

    sum = bias + sum over the window of (code - input_zero_point) * weight      in 32-bit integers, exactly
    code = clamp(round(sum * multiplier) + zero_point)                          rounded to even at ties, in float32

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference"
(2018), sections 2.2 to 2.4; the multiplier is a float32 here and in onnxruntime, and a fixed-point number there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.kernels import backend
from tinytorch.kernels.conv import output_size
from tinytorch.kernels.dot import current_dot_path


@dataclass(frozen=True, eq=False)
class _Layer:
    """What convolution and linear layer share: `Linear` says what it is."""

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    input_zero_point: int = 0
    zero_point: int = 0
    lowest: int = 0
    highest: int = 255

    def __post_init__(self) -> None:
        name, channels = type(self).__name__, len(self.weight)
        for what, dtype in (("weight", np.int8), ("bias", np.int32), ("multiplier", np.float32)):
            if getattr(self, what).dtype != dtype:
                raise TypeError(f"{name}: {what} has to be {np.dtype(dtype)}, not {getattr(self, what).dtype}")
        if self.bias.shape != (channels,) or self.multiplier.shape != (channels,):
            shapes = f"bias {self.bias.shape} and multiplier {self.multiplier.shape}"
            raise ValueError(f"{name}: {channels} output channels need as many numbers, got {shapes}")
        if not (np.isfinite(self.multiplier).all() and (self.multiplier > 0).all()):
            raise ValueError(f"{name}: every multiplier has to be a finite number above zero")
        if not 0 <= self.lowest <= self.highest <= 255:
            raise ValueError(f"{name}: output codes {self.lowest} ... {self.highest} do not lie in 0 ... 255")
        for what in ("input_zero_point", "zero_point"):
            if not 0 <= getattr(self, what) <= 255:
                raise ValueError(f"{name}: {what} {getattr(self, what)} is no code: it lies in 0 ... 255")
        if (most := int(self.largest_sums().max(initial=0))) >= 1 << 31:
            raise ValueError(
                f"{name}: a sum could reach {most:,}, beyond 32 bits: too many inputs, or too large a bias"
            )

    def largest_sums(self) -> np.ndarray:
        """Return a bound, int64 (O,), on what a sum may reach on either side of zero."""
        weights = np.abs(self.weight.reshape(len(self.weight), -1).astype(np.int64)).sum(axis=1)
        return 255 * weights + np.abs(self.bias.astype(np.int64))

    def codes(self, sums: np.ndarray) -> np.ndarray:
        """Return the codes uint8 (..., O) of sums int32 (..., O)."""
        scaled = sums.astype(np.float32) * self.multiplier
        low, high = np.float32(self.lowest - self.zero_point), np.float32(self.highest - self.zero_point)
        return (np.rint(np.clip(scaled, low, high)) + np.float32(self.zero_point)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Convolution(_Layer):
    """weight (O, C, k, k): codes (N, C, H, W) -> (N, O, Ho, Wo), pooled if `pool` is above 1.

    `pool` is the side of max pooling's windows, which do not overlap. Pooling the sums or the codes is the same, for a
    larger sum never has a smaller code. What it shares with `Linear` stands there, errors too; a ValueError also says
    which windows there cannot be.
    """

    stride: int = 1
    padding: int = 0
    pool: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim != 4 or self.weight.shape[2] != self.weight.shape[3]:
            raise ValueError(f"Convolution: weight has to be (O, C, k, k), got {self.weight.shape}")
        if self.stride < 1 or self.padding < 0 or self.pool < 1:
            raise ValueError(f"Convolution: stride {self.stride}, padding {self.padding}, pool {self.pool}: no windows")


@dataclass(frozen=True, eq=False)
class Linear(_Layer):
    """weight (O, I): codes (N, I) -> (N, O).

    A TypeError if an array has another dtype; a ValueError if one has another shape, a multiplier or a code is out of
    its range, or a sum could leave 32 bits.

    Attributes
    ----------
    weight
        int8; the first axis is that of the output channels.
    bias
        int32 (O,), in units of input scale times weight scale.
    multiplier
        float32 (O,), above zero: input scale times weight scale over output scale.
    input_zero_point
        The code of zero in the input: padding has it.
    zero_point
        The code of zero in the output.
    lowest, highest
        The range of output codes; ReLU is `lowest = zero_point`.
    floats
        Whether the result is sum * multiplier in float32: the last layer's, whose numbers are wanted, not codes.
    """

    floats: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim != 2:
            raise ValueError(f"Linear: weight has to be (O, I), got {self.weight.shape}")


@dataclass(frozen=True)
class Pooling:
    """Windows of side `kernel`, `stride` apart: the largest code, or (`mean`) the mean rounded to even at ties.

    Codes (N, C, H, W) -> (N, C, Ho, Wo). A ValueError if one is below 1.
    """

    kernel: int
    stride: int
    mean: bool = False

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.stride < 1:
            raise ValueError(f"Pooling: kernel {self.kernel}, stride {self.stride}: no windows")


Layer = Convolution | Linear | Pooling

_TAKEN = np.dtype(np.float32), np.dtype(np.uint8)
_LARGEST = np.finfo(np.float32).max


def numbers(codes: np.ndarray, scale: np.float32 | np.ndarray, zero_point: int | np.ndarray) -> np.ndarray:
    """Return what codes of any shape stand for: scale * (codes - zero_point), never beyond the largest float32.

    Scale and zero point are one for all, or have a shape that is broadcast to that of the codes.
    """
    with np.errstate(over="ignore"):  # the outermost code may lie half a step beyond
        values = np.subtract(codes, zero_point, dtype=np.float32) * scale
    return np.asarray(np.clip(values, -_LARGEST, _LARGEST))


def exact_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply whole numbers a (..., K) by b (K, O): int32 sums.

    NumPy's products of integers are plain loops. Of float64 they are BLAS, and exact: no sum reaches 2^53.
    """
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)


def convolution_sums(x: np.ndarray, layer: Convolution) -> np.ndarray:
    """Return the sums int32 (N, Ho, Wo, O) of codes (N, C, H, W), before pooling."""
    margin, (kh, kw) = layer.padding, layer.weight.shape[2:]
    centred = x.astype(np.int16) - layer.input_zero_point
    padded = np.pad(centred, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (2, 3))
    windows = windows[:, :, :: layer.stride, :: layer.stride].transpose(0, 2, 3, 1, 4, 5)  # (N, Ho, Wo, C, kh, kw)
    weight = layer.weight.reshape(len(layer.weight), -1)
    return exact_product(windows.reshape(*windows.shape[:3], weight.shape[1]), weight.T) + layer.bias


def _convolution(x: np.ndarray, layer: Convolution) -> np.ndarray:
    codes = layer.codes(convolution_sums(x, layer)).transpose(0, 3, 1, 2)
    return codes if layer.pool == 1 else _pooling(codes, Pooling(layer.pool, layer.pool))


def _linear(x: np.ndarray, layer: Linear) -> np.ndarray:
    sums = exact_product(x.astype(np.int16) - layer.input_zero_point, layer.weight.T) + layer.bias
    return sums.astype(np.float32) * layer.multiplier if layer.floats else layer.codes(sums)


def _pooling(x: np.ndarray, layer: Pooling) -> np.ndarray:
    k = layer.kernel
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))[:, :, :: layer.stride, :: layer.stride]
    if not layer.mean:
        return windows.max(axis=(4, 5))
    total = windows.sum(axis=(4, 5), dtype=np.int32).astype(np.float32)
    return np.rint(total / np.float32(k * k)).astype(np.uint8)


def _naive_convolution(x: np.ndarray, layer: Convolution) -> np.ndarray:
    (n, c, h, w), (o, _, kh, kw) = x.shape, layer.weight.shape
    rows, columns = (output_size(s, k, layer.stride, layer.padding) for s, k in ((h, kh), (w, kw)))
    out = np.empty((n, rows, columns, o), np.uint8)
    for image, y, z, channel in np.ndindex(*out.shape):
        total = int(layer.bias[channel])
        for i, j, k in np.ndindex(kh, kw, c):
            row, column = y * layer.stride + i - layer.padding, z * layer.stride + j - layer.padding
            if 0 <= row < h and 0 <= column < w:
                code = int(x[image, k, row, column])
                total += (code - layer.input_zero_point) * int(layer.weight[channel, k, i, j])
        out[image, y, z, channel] = _naive_code(total, channel, layer)
    codes = out.transpose(0, 3, 1, 2)
    return codes if layer.pool == 1 else _naive_pooling(codes, Pooling(layer.pool, layer.pool))


def _naive_code(total: int, channel: int, layer: _Layer) -> int:
    code = round(float(np.float32(total) * layer.multiplier[channel])) + layer.zero_point
    return min(max(code, layer.lowest), layer.highest)


def _naive_linear(x: np.ndarray, layer: Linear) -> np.ndarray:
    out = np.empty((len(x), len(layer.weight)), np.float32 if layer.floats else np.uint8)
    for n, o in np.ndindex(*out.shape):
        total = int(layer.bias[o])
        for k in range(x.shape[1]):
            total += (int(x[n, k]) - layer.input_zero_point) * int(layer.weight[o, k])
        out[n, o] = np.float32(total) * layer.multiplier[o] if layer.floats else _naive_code(total, o, layer)
    return out


def _naive_pooling(x: np.ndarray, layer: Pooling) -> np.ndarray:
    k, stride = layer.kernel, layer.stride
    rows, columns = (output_size(size, k, stride, 0) for size in x.shape[2:])
    out = np.empty((*x.shape[:2], rows, columns), np.uint8)
    for n, c, y, z in np.ndindex(*out.shape):
        window = x[n, c, y * stride : y * stride + k, z * stride : z * stride + k]
        codes = [int(code) for code in window.flat]
        out[n, c, y, z] = round(float(np.float32(sum(codes)) / np.float32(k * k))) if layer.mean else max(codes)
    return out


_NUMPY: dict[type, Any] = {Convolution: _convolution, Linear: _linear, Pooling: _pooling}
_NAIVE: dict[type, Any] = {Convolution: _naive_convolution, Linear: _naive_linear, Pooling: _naive_pooling}


def _described(layer: Layer) -> tuple[Any, ...]:
    """Return what the work of a layer is counted by: its kind, its arrays, and its sizes."""
    if isinstance(layer, Pooling):
        return "pooling", layer.kernel, layer.stride, layer.mean
    arrays = layer.weight, layer.bias, layer.multiplier
    if isinstance(layer, Linear):
        return "linear", *arrays, layer.floats
    return "convolution", *arrays, layer.stride, layer.padding, layer.pool


def _output_shape(layers: tuple[Layer, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Follow the shape of one input through the layers."""
    if not layers:
        raise ValueError("a network needs at least one layer")
    for place, layer in enumerate(layers):
        here = f"layer {place}, {type(layer).__name__},"
        if isinstance(layer, Linear):
            inputs = layer.weight.shape[1]
            if math.prod(shape) != inputs:
                raise ValueError(f"{here} takes ({inputs},), not {shape}")
            if len(shape) not in (1, 3):
                raise ValueError(f"{here} takes ({inputs},) or images (C, H, W), not {shape}: reshape to (N, {inputs})")
            shape = (len(layer.weight),)
            continue
        channels, wanted, kernel, padding, pool = shape[0], "images (C, H, W)", 0, 0, 1
        if isinstance(layer, Convolution):
            channels, in_channels, kernel = layer.weight.shape[:3]
            wanted, padding, pool = f"({in_channels}, H, W)", layer.padding, layer.pool
        else:
            in_channels, kernel = channels, layer.kernel
        if len(shape) != 3 or in_channels != shape[0]:
            raise ValueError(f"{here} takes {wanted}, not {shape}")
        rows, columns = (output_size(size, kernel, layer.stride, padding) // pool for size in shape[1:])
        if rows < 1 or columns < 1:
            raise ValueError(f"{here} leaves nothing of images of {shape[1]} x {shape[2]}")
        shape = (channels, rows, columns)
    return shape


class Network:
    """Layers one after another, as the current backend computes them; all backends give the same codes, bit for bit.

    Between the last image and the first vector, images are flattened in the order (C, H, W).

    Parameters
    ----------
    layers
        Convolutions and poolings, then linear layers; either part may be missing.
    input_shape
        Of one image (C, H, W), or of one vector (features,).
    scale, zero_point
        What an input code means: with them the network takes float32 images too, and rounds them to codes itself.
    highest
        The largest code of the input.

    Raises
    ------
    ValueError
        If there is no layer, or the shape of one does not fit what comes before it: the message gives its place.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: tuple[int, ...],
        scale: float = 1.0,
        zero_point: int = 0,
        highest: int = 255,
    ) -> None:
        self.layers, self.input_shape = tuple(layers), tuple(input_shape)
        self.described = tuple(map(_described, self.layers))
        self.output_shape = _output_shape(self.layers, self.input_shape)
        self.scale, self.zero_point, self.highest = np.float32(scale), zero_point, highest
        self._programs: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_programs": {}}  # compiled parts cannot be copied

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the codes (or numbers, after a linear layer with `floats`) for x (N, *input_shape), uint8 or float32.

        Raises
        ------
        ValueError
            If x has another shape or dtype, or holds NaN: they have no code.
        """
        if x.shape[1:] != self.input_shape or x.dtype not in _TAKEN:
            sizes = ", ".join(map(str, self.input_shape))
            raise ValueError(f"this network is for uint8 or float32 (N, {sizes}), got {x.dtype} {x.shape}")
        name = backend.current_backend()
        if name == "numba":
            path = current_dot_path()
            program = self._programs.get(path)
            if program is None:
                program = self._programs[path] = backend.compiled("int8").Program(self, path)
            return program(x)
        codes = x if x.dtype == np.uint8 else self._codes(x)
        for layer in self.layers:
            if isinstance(layer, Linear):
                codes = codes.reshape(len(codes), layer.weight.shape[1])
            codes = (_NAIVE if name == "naive" else _NUMPY)[type(layer)](codes, layer)
        return codes

    def _codes(self, x: np.ndarray) -> np.ndarray:
        if np.isnan(x).any():
            raise ValueError(f"the input holds {int(np.isnan(x).sum())} NaN, which have no code")
        low, high = np.float32(-self.zero_point), np.float32(self.highest - self.zero_point)
        return (np.rint(np.clip(x / self.scale, low, high)) + np.float32(self.zero_point)).astype(np.uint8)
