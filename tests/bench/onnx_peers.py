"""Operations and the reference CNN as onnxruntime sessions, on as many threads as our kernels when they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tinytorch import get_num_threads, nn
from tinytorch.nn.fuse import fold_batch_norm


def _session(nodes: list[Any], shape: tuple[int, ...], weights: dict[str, np.ndarray]) -> onnxruntime.InferenceSession:
    """Build a session from "x" of a fixed shape to the output of the last node."""
    graph = helper.make_graph(
        nodes,
        "peer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = get_num_threads(), 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def matmul(b: np.ndarray, rows: int) -> onnxruntime.InferenceSession:
    """x (rows, K) @ b (K, N), b known beforehand."""
    return _session([helper.make_node("MatMul", ["x", "b"], ["y"])], (rows, b.shape[0]), {"b": b})


def conv2d(weight: np.ndarray, shape: tuple[int, ...], padding: int) -> onnxruntime.InferenceSession:
    """A convolution of x of `shape` (N, C, H, W), without bias."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[padding] * 4)
    return _session([node], shape, {"w": weight})


def sequential(model: nn.Sequential, shape: tuple[int, ...]) -> onnxruntime.InferenceSession:
    """The reference CNN, batch norm folded into the weights: what onnxruntime's own optimizer does too."""
    layers, nodes, weights = list(model.modules())[1:], [], {}
    last = "x"
    for i, layer in enumerate(layers):
        out, inputs, options = f"y{i}", [last], {}
        if isinstance(layer, nn.Conv2d):
            following = layers[i + 1]
            norm = following if isinstance(following, nn.BatchNorm2d) else None
            weights[f"w{i}"], weights[f"b{i}"] = fold_batch_norm(layer, norm)
            kind, inputs, options = "Conv", [last, f"w{i}", f"b{i}"], {"pads": [layer.padding] * 4}
        elif isinstance(layer, nn.Linear):
            weights[f"w{i}"], weights[f"b{i}"] = layer.weight.data, layer.bias.data
            kind, inputs, options = "Gemm", [last, f"w{i}", f"b{i}"], {"transB": 1}
        elif isinstance(layer, nn.MaxPool2d):
            kind, options = "MaxPool", {"kernel_shape": [layer.kernel_size] * 2, "strides": [layer.stride] * 2}
        elif isinstance(layer, nn.ReLU | nn.Flatten):
            kind = {nn.ReLU: "Relu", nn.Flatten: "Flatten"}[type(layer)]
        elif isinstance(layer, nn.BatchNorm2d):
            continue  # folded into the convolution before it
        else:
            raise TypeError(f"no peer of {layer!r}")
        nodes.append(helper.make_node(kind, inputs, [out], **options))
        last = out
    return _session(nodes, shape, weights)
