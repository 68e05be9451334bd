"""Models of this package as submissions: each layer becomes the node that does the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.benchmarks.tinymlperf.graph import AttributeValue, Graph, Node
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.tasks import TASKS
from tinytorch.compression.sparse_layers import SparseConv2d, SparseLinear
from tinytorch.compression.sparse_model import SparseModel
from tinytorch.kernels import sparse
from tinytorch.nn.fuse import fold_batch_norm
from tinytorch.nn.queue import LayerQueue
from tinytorch.quantization.dynamic import DynamicQuantizedLinear
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d
from tinytorch.quantization.model import QuantizedModel
from tinytorch.quantization.tensor import QParams


def export(
    model: nn.Module,
    task: str,
    *,
    division: str = "closed",
    cache: str = "float32",
    window: int = 64,
    sinks: int = 4,
) -> Submission:
    """Return a submission that computes what a model does.

    Parameters
    ----------
    model
        An `nn.Sequential` of the layers that chapters 14 to 17 know, sparse, factorized and dynamically quantized ones
        among them; a `QuantizedModel`; a `SparseModel`; or an `nn.GPT`, of such layers if you like. Batch norm becomes
        part of the convolution before it.
    task
        Its name.
    division
        "closed" for the reference's architecture and data, "open" for others.
    cache, window, sinks
        What attention remembers: "none", "float32", "int8", or "window": the first `sinks` positions and the last
        `window`.

    Raises
    ------
    KeyError
        If there is no such task.
    TypeError
        If there is no operation for a layer: says which.
    Rejected
        If the model is not one for this task.
    """
    builder = _Builder(task)
    if isinstance(model, nn.GPT):
        builder.gpt(model, {"cache": cache, "window": window, "sinks": sinks})
    elif isinstance(model, QuantizedModel):
        builder.quantized(model)
    elif isinstance(model, SparseModel):
        builder.sparse(model)
    elif isinstance(model, nn.Sequential):
        builder.sequential(model)
    else:
        raise TypeError(f"a {type(model).__name__} cannot be exported: wrap its layers in an nn.Sequential")
    submission = builder.submission(division)
    submission.check()
    return submission


class _Builder:
    """Nodes and tensors, one layer after the other; `value` is what the next one works on."""

    def __init__(self, task: str) -> None:
        if task not in TASKS:
            raise KeyError(f"no task {task!r}; there are: {', '.join(TASKS)}")
        given = TASKS[task].input
        self.task, self.inputs = task, (given,)
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.value = given.name

    def submission(self, division: str) -> Submission:
        return Submission(Graph(self.task, division, self.inputs, tuple(self.nodes), (self.value,)), self.arrays)

    def add(self, op: str, *values: str, tensors: Any = (), path: str = "", **attributes: Any) -> str:
        """Add a node for values, or for the last one, with tensors by name; return its result."""
        names = []
        for name, array in tensors:
            if array is not None:
                names.append(f"{path}.{name}" if path else name)
                self.arrays[names[-1]] = np.ascontiguousarray(array)
        self.value, before = f"v{len(self.nodes)}", self.value
        self.nodes.append(Node(op, (*(values or (before,)), *names), (self.value,), attributes))
        return self.value

    def sequential(self, model: nn.Sequential) -> None:
        rest = LayerQueue(model)
        while rest:
            path, layer = rest.pop()
            if isinstance(layer, nn.Conv2d):
                norm = rest.take(nn.BatchNorm2d)
                self.convolution(path, layer, norm[0] if norm else None)
            else:
                self.layer(path, layer)

    def convolution(self, path: str, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
        weight, bias = fold_batch_norm(conv, norm)
        tensors = ("weight", weight), ("bias", bias if norm or conv.bias is not None else None)
        self.add("conv2d", tensors=tensors, path=path, stride=conv.stride, padding=conv.padding)

    def layer(self, path: str, layer: nn.Module) -> None:
        tensors: Any = [(name, getattr(layer, name, None)) for name in ("weight", "bias")]
        tensors = [(name, None if p is None else p.data) for name, p in tensors if isinstance(p, nn.Parameter)]
        if isinstance(layer, nn.Linear):
            self.add("linear", tensors=tensors, path=path)
        elif isinstance(layer, DynamicQuantizedLinear):
            codes = [(name, getattr(layer, name)) for name in ("weight", "weight_scale", "bias")]
            self.add("dynamic_qlinear", tensors=codes, path=path)
        elif isinstance(layer, nn.BatchNorm2d):
            running = ("running_mean", layer.running_mean), ("running_var", layer.running_var)
            self.add("batch_norm2d", tensors=[*tensors, *running], path=path, eps=layer.eps)
        elif isinstance(layer, nn.LayerNorm):
            self.add("layer_norm", tensors=tensors, path=path, eps=layer.eps)
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            op = "max_pool2d" if isinstance(layer, nn.MaxPool2d) else "avg_pool2d"
            self.add(op, kernel_size=layer.kernel_size, stride=layer.stride)
        elif isinstance(layer, nn.Flatten):
            self.add("flatten")
        elif isinstance(layer, nn.ReLU | nn.GELU):
            self.add("relu" if isinstance(layer, nn.ReLU) else "gelu")
        elif isinstance(layer, SparseLinear | SparseConv2d):
            sizes = ("kernel_size", "stride", "padding") if isinstance(layer, SparseConv2d) else ()
            self.rows(path, layer.rows, layer.bias, **{name: getattr(layer, name) for name in sizes})
        elif not isinstance(layer, nn.Dropout):  # does nothing in evaluation
            raise TypeError(f"there is no operation for {layer!r} at {path!r}")

    def rows(self, path: str, rows: sparse.Rows, bias: np.ndarray | None, **sizes: AttributeValue) -> None:
        """Add a layer of rows in CSR: a convolution if there are sizes, else a linear layer."""
        small = next(kind for kind in (np.uint8, np.uint16, np.int32) if rows.columns - 1 <= np.iinfo(kind).max)
        tensors = [("values", rows.values), ("indices", rows.indices.astype(small)), ("indptr", rows.indptr)]
        self.add("sparse_conv2d" if sizes else "sparse_linear", tensors=[*tensors, ("bias", bias)], path=path, **sizes)

    def sparse(self, model: SparseModel) -> None:
        images = True
        for number, part in enumerate(model.parts):
            path, layer = str(number), part.sparse
            if layer is None:
                assert part.dense is not None
                self.layer(path, part.dense)
                images = images and not isinstance(part.dense, nn.Flatten)
                continue
            rows, bias = layer.rows, layer.bias
            if isinstance(layer, sparse.Linear):
                if images:
                    self.add("flatten")  # a network does it by itself
                images = False
                if layer.dense:
                    self.add("linear", tensors=[("weight", rows.to_dense()), ("bias", bias)], path=path)
                else:
                    self.rows(path, rows, bias)
            else:
                sizes = {"stride": layer.stride, "padding": layer.padding}
                if layer.dense:
                    weight = rows.to_dense().reshape(rows.outputs, -1, layer.kernel, layer.kernel)
                    self.add("conv2d", tensors=[("weight", weight), ("bias", bias)], path=path, **sizes)
                else:
                    self.rows(path, rows, bias, kernel_size=layer.kernel, **sizes)
            if layer.relu:
                self.add("relu")
            if isinstance(layer, sparse.Convolution) and layer.pool > 1:
                self.add("avg_pool2d" if layer.mean else "max_pool2d", kernel_size=layer.pool, stride=layer.pool)

    def quantized(self, model: QuantizedModel) -> None:
        codes, images = False, True
        for number, layer in enumerate(model.layers):
            path = str(number)
            if not isinstance(layer, QuantizedConv2d | QuantizedLinear | QuantizedPool2d):
                if codes:
                    self.add("dequantize")
                self.layer(path, layer)
                codes, images = False, images and not isinstance(layer, nn.Flatten)
                continue
            if not codes:
                self.add("quantize", **_meaning(layer.input_qparams))
                codes = True
            if isinstance(layer, QuantizedPool2d):
                self.add("qpool2d", kernel_size=layer.kernel_size, stride=layer.stride, mean=layer.mean)
                continue
            tensors = [(name, getattr(layer, name)) for name in ("weight", "weight_scale", "bias")]
            common: dict[str, Any] = {"weight_bits": layer.weight_bits, "relu": layer.relu}
            common |= _meaning(layer.qparams) if layer.qparams is not None else {"floats": True}
            if isinstance(layer, QuantizedConv2d):
                sizes = {"stride": layer.stride, "padding": layer.padding, "pool": layer.pool}
                self.add("qconv2d", tensors=tensors, path=path, **common, **sizes)
                continue
            if images:
                self.add("flatten")
                images = False
            self.add("qlinear", tensors=tensors, path=path, **common)
            codes = layer.qparams is not None
        if codes:
            self.add("dequantize")

    def gpt(self, model: nn.GPT, how: dict[str, Any]) -> None:
        ids = self.value
        tokens = self.add("embedding", ids, tensors=[("weight", model.token_embedding.weight.data)], path="tokens")
        places = self.add(
            "positions", ids, tensors=[("weight", model.position_embedding.weight.data)], path="positions"
        )
        x = self.add("add", tokens, places)
        for i, block in enumerate(model.blocks):
            at, attention = f"blocks.{i}", block.attention
            self.layer(f"{at}.norm1", block.norm1)
            heads: dict[str, Any] = {"num_heads": attention.num_heads, "num_kv_heads": attention.num_kv_heads}
            if (tensors := _projections(attention)) is not None:
                self.add("attention", tensors=tensors, path=f"{at}.attention", **heads, **how)
            else:
                self.layers(f"{at}.attention.in_proj", attention.in_proj)
                self.add("attend", **heads, **how)
                self.layers(f"{at}.attention.out_proj", attention.out_proj)
            x = self.add("add", x, self.value)
            self.layer(f"{at}.norm2", block.norm2)
            self.layers(f"{at}.mlp", block.mlp)
            x = self.add("add", x, self.value)
        self.layer("norm", model.norm)
        self.layer("head", model.head)

    def layers(self, path: str, layer: nn.Module) -> None:
        for at, below in _flat(layer, path):
            self.layer(at, below)


def _flat(layer: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(layer, nn.Sequential):
        for name, below in layer.named_children():
            yield from _flat(below, f"{path}.{name}")
    else:
        yield path, layer


def _projections(attention: nn.MultiHeadAttention) -> list[tuple[str, np.ndarray]] | None:
    """Return weights and biases of attention's linear layers, None if these are of other kinds."""
    found = []
    for name in ("in_proj", "out_proj"):
        layer = getattr(attention, name)
        if type(layer) is not nn.Linear or layer.bias is None:
            return None
        found += [(f"{name}.weight", layer.weight.data), (f"{name}.bias", layer.bias.data)]
    return found


def _meaning(qparams: QParams) -> dict[str, Any]:
    return {"scale": float(qparams.scale), "zero_point": int(qparams.zero_point), "bits": int(qparams.bits)}
