"""Operations in whole numbers of 8 bits: what chapter 16 makes of convolutions and linear layers.

A value of dtype uint8 is codes, and its scale and zero point come with it from the operation that made it.
`dynamic_qlinear` works on float32, which it rounds by itself. An operation on whole numbers counts as one on
floating-point numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.benchmarks.tinymlperf.operations.floats import PADDING, SIDE, STRIDE
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
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.profiling.flops.formulas import dynamic as formula
from tinytorch.quantization.dynamic import DynamicQuantizedLinear
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d
from tinytorch.quantization.tensor import QParams, QuantizedTensor
from tinytorch.tensor import Tensor

_SCALE = Attribute(float, 1e-30, 1e30)
_MEANING = {"scale": _SCALE, "zero_point": Attribute(int, 0, 255), "bits": Attribute(int, 2, 8, default=8)}
_WEIGHTS = {"weight_bits": Attribute(int, 2, 8, default=8), "relu": Attribute(bool, 0, 1, default=False)}
_RESCALED = 2  # for each number that comes out: the bias, and the multiplier


def _meaning(a: Attributes) -> QParams:
    qparams = QParams(a["scale"], a["zero_point"], a["bits"])
    need(a["zero_point"] <= qparams.highest, Code.BAD_ATTRIBUTE, f"zero_point {a['zero_point']} is no code")
    return qparams


def _need_codes(flow: Flow, name: str) -> QParams:
    if flow.dtype != "uint8" or flow.qparams is None:
        raise Rejected(Code.BAD_DTYPE, f"{name} takes codes, uint8, not {flow.dtype}: quantize them before")
    return flow.qparams


def _quantize_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    need_floats(flows[0], None, "quantize")
    return Flow("uint8", flows[0].shape, _meaning(a))


def _quantize(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> Quantize:
    assert y.qparams is not None
    return Quantize(y.qparams)


def _dequantize_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    _need_codes(flows[0], "dequantize")
    return Flow("float32", flows[0].shape)


def _need_weights(name: str, arrays: Arrays, shape: tuple[int | None, ...], of_bias: str = "int32") -> np.ndarray:
    weight, scale, bias = arrays
    assert weight is not None
    assert scale is not None
    need_array(weight, f"the weight of {name}", "int8", shape)
    need_array(scale, f"the weight_scale of {name}", "float32", (len(weight),))
    need_array(bias, f"the bias of {name}", of_bias, (len(weight),))
    need(bool((scale > 0).all()), Code.BAD_VALUE, f"a scale of the weight of {name} is not above zero")
    return weight


def _conv_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,) = flows
    _need_codes(x, "qconv2d")
    need(len(x.shape) == 4, Code.BAD_SHAPE, f"qconv2d takes (N, C, H, W), not {x.shape}")
    weight = _need_weights("qconv2d", arrays, (None, x.shape[1], None, None))
    need(weight.shape[2] == weight.shape[3], Code.BAD_SHAPE, f"windows of qconv2d are square, not {weight.shape[2:]}")
    height, width = (n // a["pool"] for n in window(x, "qconv2d", weight.shape[2], a["stride"], a["padding"]))
    need(min(height, width) >= 1, Code.BAD_SHAPE, f"pooling by {a['pool']} leaves nothing of qconv2d's result")
    y = Flow("uint8", (x.shape[0], len(weight), height, width), _meaning(a))
    return _settled(_conv(arrays, a, x, y), y)


def _linear_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,) = flows
    _need_codes(x, "qlinear")
    need(len(x.shape) == 2, Code.BAD_SHAPE, f"qlinear takes (N, features), not {x.shape}: flatten before it")
    weight = _need_weights("qlinear", arrays, (None, x.shape[1]))
    need(not (a["floats"] and a["relu"]), Code.BAD_ATTRIBUTE, "relu of qlinear is done to codes: floats have none")
    shape = x.shape[0], len(weight)
    y = Flow("float32", shape) if a["floats"] else Flow("uint8", shape, _meaning(a))
    return _settled(_linear(arrays, a, x, y), y)


def _settled(layer: Any, y: Flow) -> Flow:
    """Let the kernels check what they rely on, such as sums that fit into 32 bits."""
    try:
        layer.spec()
    except (TypeError, ValueError) as error:
        raise Rejected(Code.BAD_VALUE, str(error)) from None
    return y


def _numbers(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> dict[str, Any]:
    weight, scale, bias = arrays
    numbers = {"weight": weight, "weight_scale": scale, "bias": bias, "input_qparams": x.qparams, "qparams": y.qparams}
    return numbers | {"weight_bits": a["weight_bits"], "relu": a["relu"]}


def _conv(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> QuantizedConv2d:
    sizes = {name: a[name] for name in ("stride", "padding", "pool")}
    return QuantizedConv2d(**_numbers(arrays, a, x, y), **sizes)


def _linear(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> QuantizedLinear:
    return QuantizedLinear(**_numbers(arrays, a, x, y))


def _conv_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    assert arrays[0] is not None
    before = y.size * a["pool"] ** 2  # sums, before the largest of each window is kept
    compared = before if a["pool"] > 1 else 0
    return int(before * (2 * math.prod(arrays[0].shape[1:]) + _RESCALED) + compared)


def _linear_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    return y.size * (2 * x.shape[1] + _RESCALED)


def _dynamic_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,) = flows
    need_floats(x, None, "dynamic_qlinear")
    need(len(x.shape) >= 2, Code.BAD_SHAPE, f"dynamic_qlinear takes (N, ..., features), not {x.shape}")
    weight = _need_weights("dynamic_qlinear", arrays, (None, x.shape[-1]), "float32")
    y = Flow("float32", (*x.shape[:-1], len(weight)))
    try:
        _dynamic(arrays, a, x, y)
    except (TypeError, ValueError) as error:  # such as sums that do not fit into 32 bits
        raise Rejected(Code.BAD_VALUE, str(error)) from None
    return y


def _dynamic(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> DynamicQuantizedLinear:
    weight, scale, bias = arrays
    assert weight is not None
    assert scale is not None
    return DynamicQuantizedLinear(weight, scale, bias)


def _dynamic_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    rows = y.size // y.shape[-1]
    each = 2 * x.shape[-1] + formula.RESCALED + (arrays[2] is not None)
    return formula.ELEMENT * x.size + formula.ROW * rows + each * y.size


def _pool_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,) = flows
    qparams = _need_codes(x, "qpool2d")
    need(len(x.shape) == 4, Code.BAD_SHAPE, f"qpool2d takes (N, C, H, W), not {x.shape}")
    return Flow("uint8", (*x.shape[:2], *window(x, "qpool2d", a["kernel_size"], a["stride"])), qparams)


def _pool(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> QuantizedPool2d:
    assert x.qparams is not None
    return QuantizedPool2d(a["kernel_size"], a["stride"], a["mean"], x.qparams)


class Quantize(nn.Module):
    """Numbers -> codes."""

    def __init__(self, qparams: QParams) -> None:
        super().__init__()
        self.qparams = qparams

    def forward(self, x: Tensor) -> QuantizedTensor:
        """Round."""
        return QuantizedTensor.of(x.data, self.qparams)


class Dequantize(nn.Module):
    """Codes -> numbers."""

    def forward(self, x: QuantizedTensor) -> Tensor:
        """Multiply."""
        return Tensor(x.dequantize())


_TENSORS = ("weight", "weight_scale", "bias")

CODES = [
    Operation("quantize", _quantize_shape, lambda x, y, *_: 3 * x.size, _quantize, attributes=_MEANING),
    Operation("dequantize", _dequantize_shape, lambda x, y, *_: 2 * x.size, lambda *_: Dequantize()),
    Operation(
        "qconv2d", _conv_shape, _conv_flops, _conv, 1, _TENSORS, 0,
        {**_MEANING, **_WEIGHTS, "stride": STRIDE, "padding": PADDING, "pool": Attribute(int, 1, 64, default=1)},
    ),
    Operation(
        "qlinear", _linear_shape, _linear_flops, _linear, 1, _TENSORS, 0,
        {
            "scale": Attribute(float, 1e-30, 1e30, default=1.0), "zero_point": Attribute(int, 0, 255, default=0),
            "bits": Attribute(int, 2, 8, default=8), **_WEIGHTS, "floats": Attribute(bool, 0, 1, default=False),
        },
    ),
    Operation("dynamic_qlinear", _dynamic_shape, _dynamic_flops, _dynamic, 1, _TENSORS, 1),
    Operation(
        "qpool2d", _pool_shape, lambda x, y, arrays, a: y.size * (a["kernel_size"] ** 2 + a["mean"]), _pool,
        attributes={"kernel_size": SIDE, "stride": STRIDE, "mean": Attribute(bool, 0, 1, default=False)},
    ),
]  # fmt: skip
