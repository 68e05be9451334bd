"""Operations whose weights are mostly zero: only the others are stored, read and multiplied, as in chapter 17."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.benchmarks.tinymlperf.operations.floats import PADDING, SIDE, STRIDE
from tinytorch.benchmarks.tinymlperf.operations.operation import (
    MOST,
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
from tinytorch.compression.sparse_layers import SparseConv2d, SparseLinear
from tinytorch.kernels.sparse import Rows

_INDICES = ("uint8", "uint16", "int32")  # the smallest that will do costs the fewest bytes


def _rows(name: str, arrays: Arrays, columns: int) -> Rows:
    """Return the weights in CSR, checked: kernels trust their indices."""
    values, indices, indptr = arrays[:3]
    assert values is not None
    assert indices is not None
    assert indptr is not None
    need_array(values, f"the values of {name}", "float32", (None,))
    need_array(indices, f"the indices of {name}", _INDICES, (len(values),))
    need_array(indptr, f"the indptr of {name}", "int32", (None,))
    dense = 4 * columns * len(indptr)
    need(dense <= MOST, Code.TOO_LARGE, f"the weights of {name} would take {dense:,} bytes with their zeros")
    need(len(indptr) >= 2, Code.BAD_SHAPE, f"the indptr of {name} has fewer than two numbers")
    try:
        return Rows(values, indices.astype(np.int32), np.asarray(indptr), columns)
    except ValueError as error:
        raise Rejected(Code.BAD_INDEX, f"the weights of {name}: {error}") from None


def _linear_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,) = flows
    need_floats(x, None, "sparse_linear")
    need(len(x.shape) >= 2, Code.BAD_SHAPE, f"sparse_linear takes (N, ..., features), not {x.shape}")
    rows = _rows("sparse_linear", arrays, x.shape[-1])
    need_array(arrays[3], "the bias of sparse_linear", "float32", (rows.outputs,))
    return Flow("float32", (*x.shape[:-1], rows.outputs))


def _conv_shape(flows: list[Flow], arrays: Arrays, a: Attributes) -> Flow:
    (x,), side = flows, a["kernel_size"]
    need_floats(x, 4, "sparse_conv2d")
    rows = _rows("sparse_conv2d", arrays, x.shape[1] * side**2)
    need_array(arrays[3], "the bias of sparse_conv2d", "float32", (rows.outputs,))
    return Flow("float32", (x.shape[0], rows.outputs, *window(x, "sparse_conv2d", side, a["stride"], a["padding"])))


def _flops(x: Flow, y: Flow, arrays: Arrays, a: Attributes) -> int:
    values, _, indptr, bias = arrays
    assert values is not None
    assert indptr is not None
    places = y.size // (len(indptr) - 1)
    return 2 * len(values) * places + y.size * (bias is not None)


def _linear(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> Any:
    return SparseLinear(_rows("sparse_linear", arrays, x.shape[-1]), arrays[3])


def _conv(arrays: Arrays, a: Attributes, x: Flow, y: Flow) -> Any:
    rows = _rows("sparse_conv2d", arrays, x.shape[1] * a["kernel_size"] ** 2)
    return SparseConv2d(rows, a["kernel_size"], arrays[3], a["stride"], a["padding"])


_TENSORS = ("values", "indices", "indptr", "bias")
_SIZES: dict[str, Attribute] = {"kernel_size": SIDE, "stride": STRIDE, "padding": PADDING}

ZEROS = [
    Operation("sparse_linear", _linear_shape, _flops, _linear, 1, _TENSORS, 1),
    Operation("sparse_conv2d", _conv_shape, _flops, _conv, 1, _TENSORS, 1, _SIZES),
]
