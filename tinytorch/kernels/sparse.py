"""Layers whose weights are mostly zero: rows of the numbers that are not, and where they stand.

The form is CSR, "compressed sparse rows": `values` holds the weights that are not zero, one output channel behind the
other; `indices` tells of each its place in the flattened row of the dense weight; output channel o has those from
`indptr[o]` to `indptr[o + 1]`. What is zero is not stored, not read and not multiplied.

Source: Saad, "Iterative methods for sparse linear systems", 2nd edition (2003), section 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinytorch.kernels import backend
from tinytorch.kernels.conv import output_size

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class Rows:
    """A matrix (len(indptr) - 1, columns) in CSR: float32 `values`, int32 `indices` (rising in a row) and `indptr`.

    A ValueError says what is not so.
    """

    values: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    columns: int

    def __post_init__(self) -> None:
        if self.values.dtype != _FLOAT32 or self.values.shape != self.indices.shape or self.values.ndim != 1:
            raise ValueError(f"values are float32, with as many indices: got {self.values.dtype} {self.values.shape}")
        counts: np.ndarray = np.diff(self.indptr.astype(np.int64))  # in 32 bits a step back may look like one ahead
        if self.indptr[0] != 0 or (counts < 0).any() or self.indptr[-1] != len(self.values):
            raise ValueError(f"indptr has to rise from 0 to the number of values, {len(self.values)}")
        low, high = self.indices.min(initial=0), self.indices.max(initial=0)
        if low < 0 or high >= max(1, self.columns):
            raise ValueError(f"indices lie in 0 ... {self.columns - 1}, got {low} to {high}")
        same_row = np.repeat(np.arange(len(counts)), counts)
        if not ((np.diff(self.indices) > 0) | (np.diff(same_row) > 0)).all():
            raise ValueError("the indices of a row have to rise")

    @classmethod
    def from_dense(cls, matrix: np.ndarray) -> Rows:
        """Keep what is not zero of a matrix (R, C)."""
        kept = matrix != 0
        indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
        return cls(matrix[kept].astype(np.float32), np.nonzero(kept)[1].astype(np.int32), indptr, matrix.shape[1])

    def to_dense(self) -> np.ndarray:
        """Return the matrix."""
        dense = np.zeros((self.outputs, self.columns), np.float32)
        dense[np.repeat(np.arange(len(dense)), np.diff(self.indptr)), self.indices] = self.values
        return dense

    @property
    def outputs(self) -> int:
        """The number of rows."""
        return len(self.indptr) - 1

    @property
    def size(self) -> int:
        """The number of weights, those that are zero included."""
        return self.outputs * self.columns

    @property
    def sparsity(self) -> float:
        """The share of weights that are zero, and not there."""
        return 1 - len(self.values) / max(1, self.size)

    @property
    def nbytes(self) -> int:
        """The bytes of values, indices and row pointers."""
        return self.values.nbytes + self.indices.nbytes + self.indptr.nbytes


@dataclass(frozen=True, eq=False)
class Linear:
    """rows (O, I), bias (O,) or None: x (N, I) -> (N, O); then max(x, 0) if `relu`.

    If `dense`, compiled kernels multiply the zeros, too: where few weights are zero, that is faster.
    """

    rows: Rows
    bias: np.ndarray | None = None
    relu: bool = False
    dense: bool = False


@dataclass(frozen=True, eq=False)
class Convolution:
    """rows (O, C * k * k), bias (O,) or None: x (N, C, H, W) -> (N, O, Ho, Wo); then max(x, 0) if `relu`, then pooling.

    Pooling is by windows of side `pool` that do not overlap, of the largest number or, if `mean`, of the mean. `dense`
    is as in `Linear`.
    """

    rows: Rows
    kernel: int
    bias: np.ndarray | None = None
    stride: int = 1
    padding: int = 0
    relu: bool = False
    pool: int = 1
    mean: bool = False
    dense: bool = False

    @property
    def in_channels(self) -> int:
        """C."""
        return self.rows.columns // self.kernel**2


Layer = Linear | Convolution


def _described(layer: Layer) -> tuple[Any, ...]:
    """Return what the work of a layer is counted by: its kind, its arrays, and its sizes."""
    rows = layer.rows
    weights = rows.values, rows.indices, rows.indptr, layer.bias, rows.columns, layer.dense, layer.relu
    if isinstance(layer, Linear):
        return "linear", *weights
    return "convolution", *weights, layer.kernel, layer.stride, layer.padding, layer.pool, layer.mean


def _product(rows: Rows, inputs: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Multiply (O, I) by inputs (I, M) and add bias (O,): each row takes those rows of the inputs that it needs."""
    out = np.zeros((rows.outputs, inputs.shape[1]), np.float32)
    for o, (start, stop) in enumerate(zip(rows.indptr, rows.indptr[1:], strict=False)):
        if stop > start:
            out[o] = rows.values[start:stop] @ inputs[rows.indices[start:stop]]
    return out if bias is None else out + bias[:, None]


def _naive_product(rows: Rows, inputs: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    out = np.zeros((rows.outputs, inputs.shape[1]), np.float32)
    for o, m in np.ndindex(*out.shape):
        total = 0.0 if bias is None else float(bias[o])
        for n in range(rows.indptr[o], rows.indptr[o + 1]):
            total += float(rows.values[n]) * float(inputs[rows.indices[n], m])
        out[o, m] = total
    return out


def _patches(x: np.ndarray, layer: Convolution) -> np.ndarray:
    """Return what each window sees, as columns: (C * k * k, N * Ho * Wo)."""
    margin, k = layer.padding, layer.kernel
    padded = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (2, 3))[:, :, :: layer.stride, :: layer.stride]
    count = len(x) * windows.shape[2] * windows.shape[3]
    return windows.transpose(1, 4, 5, 0, 2, 3).reshape(layer.rows.columns, count)


def _run(x: np.ndarray, layer: Layer, product: Any) -> np.ndarray:
    if isinstance(layer, Linear):
        out = product(layer.rows, x.reshape(len(x), layer.rows.columns).T, layer.bias).T
        return np.maximum(out, 0) if layer.relu else out
    size = [output_size(n, layer.kernel, layer.stride, layer.padding) for n in x.shape[2:]]
    out = (
        product(layer.rows, _patches(x, layer), layer.bias)
        .reshape(layer.rows.outputs, len(x), *size)
        .transpose(1, 0, 2, 3)
    )
    out = np.maximum(out, 0) if layer.relu else out
    if layer.pool == 1:
        return out
    windows = np.lib.stride_tricks.sliding_window_view(out, (layer.pool, layer.pool), (2, 3))
    windows = windows[:, :, :: layer.pool, :: layer.pool]
    return windows.mean(axis=(4, 5)) if layer.mean else windows.max(axis=(4, 5))


def _output_shape(layers: tuple[Layer, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Follow the shape of one input through the layers."""
    if not layers:
        raise ValueError("a network needs at least one layer")
    for place, layer in enumerate(layers):
        here, outputs = f"layer {place}, {type(layer).__name__},", layer.rows.outputs
        if isinstance(layer, Linear):
            if math.prod(shape) != layer.rows.columns:
                raise ValueError(f"{here} takes ({layer.rows.columns},), not {shape}")
            shape = (outputs,)
            continue
        if len(shape) != 3 or shape[0] != layer.in_channels:
            raise ValueError(f"{here} takes ({layer.in_channels}, H, W), not {shape}")
        sizes = (output_size(n, layer.kernel, layer.stride, layer.padding) // layer.pool for n in shape[1:])
        shape = (outputs, *sizes)
        if min(shape) < 1:
            raise ValueError(f"{here} leaves nothing of its images: {shape}")
    return shape


class Network:
    """Sparse layers one after another, as the current backend computes them.

    Images are flattened in the order (C, H, W) before the first linear layer.

    Parameters
    ----------
    layers
        Convolutions, then linear layers; either part may be missing.
    input_shape
        Of one image (C, H, W), or of one vector (features,).

    Raises
    ------
    ValueError
        If there is no layer, or the shape of one does not fit what comes before it: the message gives its place.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: tuple[int, ...]) -> None:
        self.layers, self.input_shape = tuple(layers), tuple(input_shape)
        self.described = tuple(map(_described, self.layers))
        self.output_shape = _output_shape(self.layers, self.input_shape)
        self._program: Any = None
        self._gradient: InputGradient | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_program": None}  # compiled parts cannot be copied

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output (N, ...) for float32 x (N, *input_shape). A ValueError says what does not fit."""
        if x.shape[1:] != self.input_shape or x.dtype != _FLOAT32:
            sizes = ", ".join(map(str, self.input_shape))
            raise ValueError(f"this network is for float32 (N, {sizes}), got {x.dtype} {x.shape}")
        name = backend.current_backend()
        if name == "numba":
            if self._program is None:
                self._program = backend.compiled("sparse").Program(self)
            out: np.ndarray = self._program(x)
            return out
        for layer in self.layers:
            x = _run(x, layer, _naive_product if name == "naive" else _product)
        return x

    def gradient(self, grad_output: np.ndarray) -> np.ndarray:
        """Return the input's gradient for that of the output. A ValueError unless it is one layer without ReLU."""
        if self._gradient is None:
            if len(self.layers) > 1:
                raise ValueError(
                    f"one layer has a gradient, this network has {len(self.layers)}: take layers one by one"
                )
            self._gradient = InputGradient(self.layers[0], self.input_shape)
        return self._gradient(grad_output)


class Product:
    """Rows made ready for what multiplies a few vectors at a time, in a step of a GPT; for many there is `Network`."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @cached_property
    def network(self) -> Network:
        """What multiplies with whole arrays, or number by number."""
        return Network([Linear(self.rows)], (self.rows.columns,))

    @cached_property
    def packed(self) -> np.ndarray | None:
        """Return what the compiled kernel reads; None where the processor has no instruction for it."""
        kept = backend.compiled("kept")
        packed: np.ndarray | None = kept.pack(self.rows) if kept.CAN_PICK else None
        return packed

    @cached_property
    def dense(self) -> np.ndarray:
        """The matrix, for kernels that multiply its zeros, too."""
        return self.rows.to_dense()

    def __reduce__(self) -> tuple[Any, ...]:
        return Product, (self.rows,)  # a copy is made ready where it is


class InputGradient:
    """The gradient of a layer's input: a sparse layer too, whose matrix is the transposed one.

    Of a convolution it is a convolution: the output's gradient, its pixels `stride` apart, is seen through turned
    windows. Neither ReLU nor pooling belongs to it.

    Parameters
    ----------
    layer
        Without ReLU and pooling.
    input_shape
        Of one input of the layer.

    Raises
    ------
    ValueError
        If the layer has ReLU or pooling.
    """

    def __init__(self, layer: Layer, input_shape: tuple[int, ...]) -> None:
        if layer.relu or (isinstance(layer, Convolution) and layer.pool > 1):
            raise ValueError("the gradient of ReLU and pooling needs what went in: leave them to layers of their own")
        self._layer, self._shape = layer, tuple(input_shape)
        dense = layer.rows.to_dense()
        if isinstance(layer, Linear):
            self._network = Network([Linear(Rows.from_dense(dense.T))], (len(dense),))
            return
        k = layer.kernel
        turned = dense.reshape(len(dense), -1, k, k)[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        rows = Rows.from_dense(turned.reshape(len(turned[:, 0]), -1))
        sizes = [size + k - 1 for size in self._shape[1:]]
        self._network = Network([Convolution(rows, k)], (len(dense), *sizes))

    def __call__(self, grad_output: np.ndarray) -> np.ndarray:
        """Return the gradient (N, *input_shape) for that of the output (N, ...), float32."""
        layer = self._layer
        if isinstance(layer, Linear):
            return self._network(grad_output)
        spread = np.zeros((len(grad_output), *self._network.input_shape), np.float32)
        # output pixel y saw the rows from y * stride - padding on; here that is row y * stride - padding + k - 1
        first, places = layer.kernel - 1 - layer.padding, []
        for size, outputs in zip(spread.shape[2:], grad_output.shape[2:], strict=True):
            at = first + layer.stride * np.arange(outputs)
            inside = (at >= 0) & (at < size)  # with much padding, some windows see nothing but padding
            places.append((at[inside], inside))
        (rows, some_rows), (columns, some_columns) = places
        spread[:, :, rows[:, None], columns] = grad_output[:, :, some_rows][:, :, :, some_columns]
        return self._network(spread)
