"""Networks in whole numbers of 8 bits and less: rounding, calibration, integer layers."""

from tinytorch.kernels.dot import current_dot_path, dot_path, dot_paths
from tinytorch.nn.fuse import fuse_conv_bn
from tinytorch.quantization.affine import (
    choose_qparams,
    code_range,
    dequantize,
    fake_quantize,
    quantize_per_channel,
    quantize_per_tensor,
)
from tinytorch.quantization.dynamic import DynamicQuantizedLinear, quantize_dynamic
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d
from tinytorch.quantization.model import QuantizedModel
from tinytorch.quantization.observers import MinMaxObserver, MSEObserver, PercentileObserver, qparams_per_channel
from tinytorch.quantization.onnx import export_onnx
from tinytorch.quantization.qat import convert_qat, prepare_qat, train_qat
from tinytorch.quantization.qat_layers import FakeQuantize, QATConv2d, QATLinear, QATPool2d
from tinytorch.quantization.quantizer import INT8Quantizer
from tinytorch.quantization.tensor import QParams, QuantizedTensor

__all__ = [
    "DynamicQuantizedLinear",
    "FakeQuantize",
    "INT8Quantizer",
    "MSEObserver",
    "MinMaxObserver",
    "PercentileObserver",
    "QATConv2d",
    "QATLinear",
    "QATPool2d",
    "QParams",
    "QuantizedConv2d",
    "QuantizedLinear",
    "QuantizedModel",
    "QuantizedPool2d",
    "QuantizedTensor",
    "choose_qparams",
    "code_range",
    "convert_qat",
    "current_dot_path",
    "dequantize",
    "dot_path",
    "dot_paths",
    "export_onnx",
    "fake_quantize",
    "fuse_conv_bn",
    "prepare_qat",
    "qparams_per_channel",
    "quantize_dynamic",
    "quantize_per_channel",
    "quantize_per_tensor",
    "train_qat",
]
