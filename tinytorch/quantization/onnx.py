"""A quantized model as an ONNX file: the same whole numbers for other runtimes.

The graph is written in floats, with a QuantizeLinear and a DequantizeLinear (Q and DQ) wherever numbers are codes. A
runtime that knows no better computes it as it stands; one that does puts DQ, Conv, Relu and Q together again into one
layer of whole numbers. onnxruntime makes QLinearConv and QGemm of them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.data import files
from tinytorch.kernels import int8
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d
from tinytorch.quantization.model import QuantizedLayer, QuantizedModel
from tinytorch.quantization.tensor import QParams

_OPSET, _IR_VERSION = 13, 7  # the first with a scale for each channel, and the file format of its time


def export_onnx(model: QuantizedModel, path: str | Path, input_shape: tuple[int, ...], batch: int | str = "N") -> Path:
    """Write a quantized model as an ONNX file, "x" float32 `(batch, *input_shape)` to "y" float32. Returns the path.

    What the file computes is what the model computes, but for a rounding of the multipliers: an output that lies
    halfway between two codes, as averages of pooling often do, may get the other one.

    Codes of fewer than 8 bits are uint8 too, whose saturation comes too late for them: a Clip of the codes behind the
    QuantizeLinear takes its place.

    Parameters
    ----------
    input_shape
        Of one image (C, H, W), or of one vector (features,).
    batch
        How many of them the file is for; or a name, for any number.

    Raises
    ------
    ModuleNotFoundError
        If onnx is not installed: says how to install it.
    TypeError
        If the model is not a QuantizedModel.
    ValueError
        If layers of it are in float32, or input_shape or batch do not fit. No file is written then.
    """
    try:
        onnx = importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('export_onnx needs onnx: pip install "tinytorch-book[onnx]"', name="onnx") from error
    if not isinstance(model, QuantizedModel):
        raise TypeError(f"export_onnx takes a QuantizedModel, as INT8Quantizer makes it, not {type(model).__name__}")
    layers = [layer for layer in model.layers if isinstance(layer, QuantizedLayer)]
    if len(layers) < len(model.layers):
        left = [str(i) for i, layer in enumerate(model.layers) if not isinstance(layer, QuantizedLayer)]
        raise ValueError(f"only a model of whole numbers can be exported; in float32 are layers {', '.join(left)}")
    is_name = isinstance(batch, str) and batch
    if not is_name and not (isinstance(batch, int) and batch > 0):
        raise ValueError(f"batch has to be a whole number above zero, or a name that stands for any, got {batch!r}")
    output_shape = int8.Network([layer.spec() for layer in layers], input_shape).output_shape
    graph = _Graph(onnx)
    graph.add_layers(layers, len(input_shape))
    graph.nodes[-1].output[0] = "y"
    floats, made = onnx.TensorProto.FLOAT, onnx.helper
    proto = made.make_graph(
        graph.nodes,
        "quantized",
        [made.make_tensor_value_info("x", floats, [batch, *input_shape])],
        [made.make_tensor_value_info("y", floats, [batch, *output_shape])],
        list(graph.arrays.values()),
    )
    whole = made.make_model(
        proto, opset_imports=[made.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="tinytorch"
    )
    files.write(Path(path), whole.SerializeToString())
    return Path(path)


class _Graph:
    """Nodes in their order, and the arrays that they read. Everything is known by the name of its output."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.arrays: dict[str, Any] = {}

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def array(self, name: str, values: Any, dtype: type) -> str:
        """Put an array into the file, once for each name; return the name."""
        if name not in self.arrays:
            self.arrays[name] = self._onnx.numpy_helper.from_array(np.array(values, dtype, order="C"), name)
        return name

    def rounded(self, x: str, qparams: QParams, clip: bool = False) -> str:
        """Round numbers to codes; return the numbers that those stand for. `clip` if some may lie beyond the range."""
        scale, zero_point, bits = qparams
        meaning = [
            self.array(f"scale_{scale!r}", scale, np.float32),
            self.array(f"zero_point_{zero_point}", zero_point, np.uint8),
        ]
        codes = self.add("QuantizeLinear", [x, *meaning])
        if clip and bits < 8:
            codes = self.add("Clip", [codes, "", self.array(f"highest_{bits}", qparams.highest, np.uint8)])
        return self.add("DequantizeLinear", [codes, *meaning])

    def weights(self, layer: QuantizedConv2d | QuantizedLinear, place: int) -> list[str]:
        """Return weight and bias as numbers, both made of codes with a scale for each output channel."""
        scale, channels = layer.weight_scale, len(layer.weight)
        unit = np.float64(layer.input_qparams.scale) * scale.astype(np.float64)
        weight = [
            self.array(f"weight_{place}", layer.weight, np.int8),
            self.array(f"weight_scale_{place}", scale, np.float32),
            self.array(f"weight_zero_point_{place}", np.zeros(channels), np.int8),
        ]
        bias = [
            self.array(f"bias_{place}", layer.bias, np.int32),
            self.array(f"bias_scale_{place}", np.maximum(unit, np.finfo(np.float32).tiny), np.float32),
            self.array(f"bias_zero_point_{place}", np.zeros(channels), np.int32),
        ]
        return [self.add("DequantizeLinear", inputs, axis=0) for inputs in (weight, bias)]

    def pooled(self, x: str, kind: str, kernel: int, stride: int, qparams: QParams) -> str:
        """Pool; the numbers have a code before and behind."""
        return self.rounded(self.add(kind, [x], kernel_shape=[kernel] * 2, strides=[stride] * 2), qparams)

    def add_layers(self, layers: list[QuantizedLayer], axes: int) -> None:
        """Append the nodes of all layers, from "x" on, of which one input has so many axes."""
        x = self.rounded("x", layers[0].input_qparams, clip=True)
        for place, layer in enumerate(layers):
            if isinstance(layer, QuantizedPool2d):
                kind = "AveragePool" if layer.mean else "MaxPool"
                x = self.pooled(x, kind, layer.kernel_size, layer.stride, layer.input_qparams)
                continue
            if isinstance(layer, QuantizedLinear) and axes > 1:
                # rounded once more, which changes nothing, so that what the product reads comes out of a DQ
                x, axes = self.rounded(self.add("Flatten", [x]), layer.input_qparams), 1
            inputs = [x, *self.weights(layer, place)]
            if isinstance(layer, QuantizedConv2d):
                x = self.add("Conv", inputs, strides=[layer.stride] * 2, pads=[layer.padding] * 4)
            else:
                x = self.add("Gemm", inputs, transB=1)
            if layer.relu:
                x = self.add("Relu", [x])
            if layer.qparams is not None:
                x = self.rounded(x, layer.qparams, clip=True)
            if isinstance(layer, QuantizedConv2d) and layer.pool > 1:
                assert layer.qparams is not None  # only a linear layer may be without
                x = self.pooled(x, "MaxPool", layer.pool, layer.pool, layer.qparams)
