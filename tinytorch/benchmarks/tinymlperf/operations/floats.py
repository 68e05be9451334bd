"""Operations on float32: layers of images and of vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.benchmarks.tinymlperf.operations.operation import (
    Arrays,
    Attribute,
    Attributes,
    Flow,
    Operation,
    need,
    need_array,
    need_floats,
    window,
)
from tinytorch.benchmarks.tinymlperf.rejection import Code
from tinytorch.profiling.flops.formulas.activation import GELU
from tinytorch.profiling.flops.formulas.normalization import ELEMENT, GROUP
from tinytorch.quantization.tensor import QuantizedTensor
from tinytorch.tensor import Tensor

SIDE = Attribute(int, 1, 64)
STRIDE = Attribute(int, 1, 64, default=1)
PADDING = Attribute(int, 0, 64, default=0)
EPS = Attribute(float, 1e-12, 1.0, default=1e-5)


def filled(layer: nn.Module, **arrays: np.ndarray | None) -> Any:
    """Return a layer with these parameters and buffers in place of its own, in evaluation mode."""
    layer.load_state_dict({name: array for name, array in arrays.items() if array is not None})
    return layer.eval()


def _conv_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,), (weight, bias) = flows, arrays
    need_floats(x, 4, "conv2d")
    assert weight is not None
    need_array(weight, "the weight of conv2d", "float32", (None, x.shape[1], None, None))
    need(weight.shape[2] == weight.shape[3], Code.BAD_SHAPE, f"windows of conv2d are square, not {weight.shape[2:]}")
    need_array(bias, "the bias of conv2d", "float32", (len(weight),))
    sizes = window(x, "conv2d", weight.shape[2], a["stride"], a["padding"])
    return Flow("float32", (x.shape[0], len(weight), *sizes))


def _conv_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    weight, bias = arrays
    assert weight is not None
    return y.size * (2 * math.prod(weight.shape[1:]) + (bias is not None))


def _conv(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> nn.Module:
    weight, bias = arrays
    assert weight is not None
    out, channels, side, _ = weight.shape
    rng = np.random.default_rng(0)
    layer = nn.Conv2d(channels, out, side, a["stride"], a["padding"], bias=bias is not None, rng=rng)
    return filled(layer, weight=weight, bias=bias)


def _linear_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,), (weight, bias) = flows, arrays
    need_floats(x, None, "linear")
    need(len(x.shape) >= 2, Code.BAD_SHAPE, f"linear takes (N, ..., features), not {x.shape}")
    assert weight is not None
    need_array(weight, "the weight of linear", "float32", (None, x.shape[-1]))
    need_array(bias, "the bias of linear", "float32", (len(weight),))
    return Flow("float32", (*x.shape[:-1], len(weight)))


def _linear_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    return y.size * (2 * x.shape[-1] + (arrays[1] is not None))


def _linear(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> nn.Module:
    weight, bias = arrays
    assert weight is not None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, rng=np.random.default_rng(0))
    return filled(layer, weight=weight, bias=bias)


def _norm_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,) = flows
    need_floats(x, 4, "batch_norm2d")
    for array, name in zip(arrays, ("weight", "bias", "running_mean", "running_var"), strict=True):
        need_array(array, f"{name} of batch_norm2d", "float32", (x.shape[1],))
    assert arrays[3] is not None
    need(bool((arrays[3] >= 0).all()), Code.BAD_VALUE, "a variance of batch_norm2d is below zero")
    return x


def _norm(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> nn.Module:
    weight, bias, mean, var = arrays
    layer = nn.BatchNorm2d(x.shape[1], eps=a["eps"])
    return filled(layer, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _layer_norm_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,) = flows
    need_floats(x, None, "layer_norm")
    for array, name in zip(arrays, ("weight", "bias"), strict=True):
        need_array(array, f"{name} of layer_norm", "float32", (x.shape[-1],))
    return x


def _layer_norm(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> nn.Module:
    return filled(nn.LayerNorm(x.shape[-1], a["eps"]), weight=arrays[0], bias=arrays[1])


def _same(name: str) -> Any:
    def shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
        need_floats(flows[0], None, name)
        return flows[0]

    return shape


def _pool_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    need_floats(flows[0], 4, "pooling")
    x = flows[0]
    return Flow("float32", (*x.shape[:2], *window(x, "pooling", a["kernel_size"], a["stride"])))


def _pool_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    return y.size * int(a["kernel_size"]) ** 2


def _mean_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    return y.size * (int(a["kernel_size"]) ** 2 + 1)


class Flatten(nn.Module):
    """All axes but the first as one, of numbers or of codes."""

    def forward(self, x: Any) -> Any:
        """Flatten."""
        if isinstance(x, QuantizedTensor):
            return QuantizedTensor(x.codes.reshape(len(x.codes), -1), x.qparams)
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _flatten_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    x = flows[0]
    need(len(x.shape) >= 2, Code.BAD_SHAPE, f"flatten takes (N, ...), not {x.shape}")
    return Flow(x.dtype, (x.shape[0], math.prod(x.shape[1:])), x.qparams)


def _add_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    x, y = flows
    need_floats(x, None, "add")
    need_floats(y, None, "add")
    need(x.shape == y.shape, Code.BAD_SHAPE, f"add takes two values of one shape, not {x.shape} and {y.shape}")
    return x


class Add(nn.Module):
    """The sum of two values of one shape."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add."""
        return x + y


_POOL = {"kernel_size": SIDE, "stride": Attribute(int, 1, 64)}

FLOATS = [
    Operation(
        "conv2d", _conv_shape, _conv_flops, _conv, 1, ("weight", "bias"), 1, {"stride": STRIDE, "padding": PADDING},
    ),
    Operation("linear", _linear_shape, _linear_flops, _linear, 1, ("weight", "bias"), 1),
    Operation(
        "batch_norm2d", _norm_shape, lambda x, y, arrays, a: 2 * x.size + 6 * x.shape[1], _norm,
        1, ("weight", "bias", "running_mean", "running_var"), 0, {"eps": EPS},
    ),
    Operation(
        "layer_norm", _layer_norm_shape,
        lambda x, y, arrays, a: ELEMENT * x.size + GROUP * (x.size // x.shape[-1]), _layer_norm,
        1, ("weight", "bias"), 0, {"eps": EPS},
    ),
    Operation("relu", _same("relu"), lambda x, y, arrays, a: x.size, lambda *_: nn.ReLU()),
    Operation("gelu", _same("gelu"), lambda x, y, arrays, a: GELU * x.size, lambda *_: nn.GELU()),
    Operation(
        "max_pool2d", _pool_shape, _pool_flops, lambda arrays, a, x, y: nn.MaxPool2d(a["kernel_size"], a["stride"]),
        attributes=_POOL,
    ),
    Operation(
        "avg_pool2d", _pool_shape, _mean_flops, lambda arrays, a, x, y: nn.AvgPool2d(a["kernel_size"], a["stride"]),
        attributes=_POOL,
    ),
    Operation("flatten", _flatten_shape, lambda *_: 0, lambda *_: Flatten()),
    Operation("add", _add_shape, lambda x, y, arrays, a: y.size, lambda *_: Add(), values=2),
]  # fmt: skip
