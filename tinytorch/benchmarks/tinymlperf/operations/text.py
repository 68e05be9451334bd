"""Operations of language models: embeddings, and attention with a memory of what was said, as in chapter 18."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.benchmarks.tinymlperf.operations.floats import filled
from tinytorch.benchmarks.tinymlperf.operations.operation import (
    Arrays,
    Attribute,
    Attributes,
    Flow,
    Operation,
    need,
    need_array,
    need_floats,
)
from tinytorch.benchmarks.tinymlperf.rejection import Code
from tinytorch.profiling.flops.formulas.activation import SOFTMAX
from tinytorch.tensor import Tensor

CACHES = ("none", "float32", "int8", "window")
REMEMBER = ("attention", "attend")  # the operations that have a cache


def _table(weight: np.ndarray) -> Any:
    rows, width = weight.shape
    return filled(nn.Embedding(rows, width, np.random.default_rng(0)), weight=weight)


class Positions(nn.Module):
    """The embedding of each position of ids (N, T), the first of them behind `past` others: -> (N, T, C)."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.table = _table(weight)
        self.past = 0

    def forward(self, ids: Tensor | np.ndarray) -> Tensor:
        """Look them up."""
        places = np.arange(self.past, self.past + ids.shape[1])
        return self.table(np.broadcast_to(places, ids.shape))


def _need_ids(flow: Flow, name: str) -> None:
    need(flow.dtype == "int64", Code.BAD_DTYPE, f"{name} takes token numbers, int64, not {flow.dtype}")
    need(len(flow.shape) == 2, Code.BAD_SHAPE, f"{name} takes (N, T) token numbers, not {flow.shape}")


def _embedding_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,), (weight,) = flows, arrays
    _need_ids(x, "embedding")
    need_array(weight, "the weight of embedding", "float32", (None, None))
    assert weight is not None
    return Flow("float32", (*x.shape, weight.shape[1]))


def _positions_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,), (weight,) = flows, arrays
    _need_ids(x, "positions")
    need_array(weight, "the weight of positions", "float32", (None, None))
    assert weight is not None
    need(
        len(weight) >= x.shape[1],
        Code.BAD_SHAPE,
        f"positions has {len(weight)} rows, and texts of {x.shape[1]} come in",
    )
    return Flow("float32", (*x.shape, weight.shape[1]))


def _embedding(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> Any:
    assert arrays[0] is not None
    return _table(arrays[0])


def _positions(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> Any:
    assert arrays[0] is not None
    return Positions(np.asarray(arrays[0]))


def _attention_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,), heads, shared = flows, a["num_heads"], a["num_kv_heads"]
    need_floats(x, 3, "attention")
    width = x.shape[2]
    need(width % heads == 0, Code.BAD_ATTRIBUTE, f"{heads} heads of attention do not divide its width, {width}")
    need(heads % shared == 0, Code.BAD_ATTRIBUTE, f"{shared} heads of keys do not divide {heads} heads of attention")
    rows = width + 2 * shared * (width // heads)
    in_weight, in_bias, out_weight, out_bias = arrays
    need_array(in_weight, "the in_proj of attention", "float32", (rows, width))
    need_array(in_bias, "the bias of in_proj of attention", "float32", (rows,))
    need_array(out_weight, "the out_proj of attention", "float32", (width, width))
    need_array(out_bias, "the bias of out_proj of attention", "float32", (width,))
    return x


def _attention_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    batch, length, width = x.shape
    assert arrays[0] is not None
    products = batch * length * ((2 * width + 1) * len(arrays[0]) + (2 * width + 1) * width)
    return int(products) + _score_flops(batch, length, a["num_heads"], width // a["num_heads"])


def _attention(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> Any:
    layer = nn.MultiHeadAttention(x.shape[2], a["num_heads"], np.random.default_rng(0), a["num_kv_heads"])
    names = ("in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias")
    return filled(layer, **dict(zip(names, arrays, strict=True)))


class Attend(nn.MultiHeadAttention):
    """Attention without its two linear layers: queries, keys and values (N, T, C + 2 Ckv) -> (N, T, C)."""

    def __init__(self, width: int, num_heads: int, num_kv_heads: int) -> None:
        nn.Module.__init__(self)  # without the weights, which can be gigabytes
        self.embed_dim, self.num_heads, self.num_kv_heads = width, num_heads, num_kv_heads
        self.head_dim = width // num_heads
        self.out_proj = nn.Sequential()  # type: ignore[assignment]  # of no layers: it changes nothing

    def _in_proj(self, x: Tensor) -> Tensor:
        return x


def _depth(x: Flow, a: Attributes) -> int:
    """Return how many numbers each head has."""
    return x.shape[2] // (a["num_heads"] + 2 * a["num_kv_heads"])


def _attend_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,), heads, shared = flows, a["num_heads"], a["num_kv_heads"]
    need_floats(x, 3, "attend")
    need(heads % shared == 0, Code.BAD_ATTRIBUTE, f"{shared} heads of keys do not divide {heads} heads of attend")
    parts = heads + 2 * shared
    need(x.shape[2] % parts == 0, Code.BAD_ATTRIBUTE, f"{parts} parts of attend do not divide its width, {x.shape[2]}")
    return Flow("float32", (*x.shape[:2], heads * _depth(x, a)))


def _attend_flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    return _score_flops(y.shape[0], y.shape[1], a["num_heads"], _depth(x, a))


def _score_flops(batch: int, length: int, heads: int, depth: int) -> int:
    return int(batch * heads * length * length * (4 * depth + 1 + SOFTMAX))


def cache_bytes(a: Attributes, width: int, positions: int) -> int:
    """Return what an attention node's memory takes for one text of so many positions."""
    numbers = 2 * a["num_kv_heads"] * (width // a["num_heads"])  # of a position: keys and values
    if a["cache"] == "int8":
        return int(positions * (numbers + 2 * 4))
    if a["cache"] == "window":
        return int(min(positions, a["window"] + a["sinks"]) * numbers * 4)
    return 0 if a["cache"] == "none" else int(positions * numbers * 4)


_ATTENTION = {
    "num_heads": Attribute(int, 1, 1024),
    "num_kv_heads": Attribute(int, 1, 1024),
    "cache": Attribute(str, texts=CACHES, default="float32"),
    "window": Attribute(int, 1, 4096, default=64),
    "sinks": Attribute(int, 0, 64, default=4),
}

TEXT = [
    Operation("embedding", _embedding_shape, lambda *_: 0, _embedding, 1, ("weight",)),
    Operation("positions", _positions_shape, lambda *_: 0, _positions, 1, ("weight",)),
    Operation(
        "attention", _attention_shape, _attention_flops, _attention,
        1, ("in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias"), 0, _ATTENTION,
    ),
    Operation(
        "attend", _attend_shape, _attend_flops,
        lambda arrays, a, x, y: Attend(y.shape[2], a["num_heads"], a["num_kv_heads"]), attributes=_ATTENTION,
    ),
]  # fmt: skip
