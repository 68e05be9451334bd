"""`SparseLinear` and `SparseConv2d`: layers that store, read and multiply only the weights that are not zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tinytorch import nn
from tinytorch.kernels import sparse
from tinytorch.kernels.decoding import Kept
from tinytorch.nn.finite import check_finite
from tinytorch.nn.image import check_images
from tinytorch.ops.sparse import SparseLayer
from tinytorch.tensor import Tensor


class _SparseLayer(nn.Module):
    """What both layers share: weights in CSR as buffers that cannot be written, and kernels for each input shape."""

    def __init__(self, rows: sparse.Rows, bias: np.ndarray | None) -> None:
        super().__init__()
        for name, array in (("values", rows.values), ("indices", rows.indices), ("indptr", rows.indptr)):
            self.register_buffer(name, array)
        self.bias = None
        if bias is not None:
            self.register_buffer("bias", bias)
        self._columns = rows.columns

    values: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    bias: np.ndarray | None
    _networks: dict[tuple[int, ...], sparse.Network]
    _product: sparse.Product | None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("values", "indices", "indptr", "bias"):
            value = None if value is None else _fixed(value)
            vars(self).update(_networks={}, _product=None)  # they were made of what stood here
        super().__setattr__(name, value)

    @property
    def rows(self) -> sparse.Rows:
        """The weights, a row for each output."""
        return sparse.Rows(self.values, self.indices, self.indptr, self._columns)

    @property
    def sparsity(self) -> float:
        """The share of weights that are zero, and not there."""
        return self.rows.sparsity

    @property
    def nbytes(self) -> int:
        """The bytes of values, indices, row pointers and bias; what kernels make of them for themselves not counted."""
        return sum(array.nbytes for array in self.state_dict().values())

    def spec(self) -> sparse.Layer:
        """Return the layer as the kernels know it."""
        raise NotImplementedError

    def network(self, shape: tuple[int, ...]) -> sparse.Network:
        """Return what computes this layer for inputs of one shape."""
        if shape not in self._networks:
            self._networks[shape] = sparse.Network([self.spec()], shape)
        return self._networks[shape]

    def _run(self, x: Tensor) -> Tensor:
        """Compute the layer of (N, ...)."""
        network = self.network(x.shape[1:])
        return SparseLayer.apply(x, network.described, network)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for name in self._buffers:  # copies of arrays can be written
            getattr(self, name).flags.writeable = False

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Refuse, by a RuntimeError: the weights are fixed. Load the dense layer, and convert it."""
        raise RuntimeError(f"the weights of a {type(self).__name__} are fixed: load the dense layer, then from_dense")


class SparseLinear(_SparseLayer):
    """y = x W^T + b with the zeros of W left out: (..., in_features) -> (..., out_features), float32.

    For inference: the weights are fixed, the input gets its gradient.

    Attributes
    ----------
    values, indices, indptr
        W in CSR: see `tinytorch.kernels.sparse`.
    bias
        (out_features,) or None.
    """

    def __init__(self, rows: sparse.Rows, bias: np.ndarray | None = None) -> None:
        super().__init__(rows, bias)
        self.in_features, self.out_features = rows.columns, rows.outputs

    @classmethod
    def from_dense(cls, linear: nn.Linear) -> Self:
        """Return the sparse form of a layer, which is left as it is and shares no memory with it.

        A TypeError if it is no `nn.Linear`, a ValueError if a weight is NaN or infinite.
        """
        _need_kind(cls, linear, nn.Linear)
        return cls(_rows_of(linear), None if linear.bias is None else linear.bias.data)

    def to_dense(self) -> nn.Linear:
        """Return the layer with its zeros stored."""
        dense = nn.Linear(self.in_features, self.out_features, self.bias is not None, np.random.default_rng(0))
        dense.load_state_dict({"weight": self.rows.to_dense(), **({} if self.bias is None else {"bias": self.bias})})
        return dense

    def spec(self) -> sparse.Linear:
        """Return the layer as the kernels know it."""
        return sparse.Linear(self.rows, self.bias)

    def for_step(self) -> Kept | None:
        """Return the weights for a whole step of a GPT in one call; None from a class that may compute otherwise."""
        if type(self) is not SparseLinear:
            return None
        if self._product is None:
            vars(self)["_product"] = sparse.Product(self.rows)
        assert self._product is not None
        return Kept(self.values, self.indices, self.indptr, self._product)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply. A ValueError names both sizes if the last axis does not fit, a TypeError a dtype not float32."""
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"SparseLinear takes inputs of {self.in_features} features, got shape {x.shape}")
        _need_float32(self, x)
        if x.ndim == 2:
            return self._run(x)
        return self._run(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Show sizes and sparsity."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}, sparsity={self.sparsity:.2%}"


class SparseConv2d(_SparseLayer):
    """A convolution with the zeros of its weights left out: (N, C, H, W) -> (N, O, Ho, Wo), float32; sizes as Conv2d's.

    For inference: the weights are fixed, the input gets its gradient.

    Attributes
    ----------
    values, indices, indptr
        The weight as a matrix (O, C * kernel_size^2) in CSR: see `tinytorch.kernels.sparse`.
    bias
        (O,) or None.
    """

    def __init__(
        self, rows: sparse.Rows, kernel_size: int, bias: np.ndarray | None = None, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(rows, bias)
        self.in_channels, self.out_channels = rows.columns // kernel_size**2, rows.outputs
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    @classmethod
    def from_dense(cls, conv: nn.Conv2d) -> Self:
        """Return the sparse form of a layer, which is left as it is and shares no memory with it.

        A TypeError if it is no `nn.Conv2d`, a ValueError if a weight is NaN or infinite.
        """
        _need_kind(cls, conv, nn.Conv2d)
        bias = None if conv.bias is None else conv.bias.data
        return cls(_rows_of(conv), conv.kernel_size, bias, conv.stride, conv.padding)

    def to_dense(self) -> nn.Conv2d:
        """Return the layer with its zeros stored."""
        sizes = self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding
        dense = nn.Conv2d(*sizes, bias=self.bias is not None, rng=np.random.default_rng(0))
        weight = self.rows.to_dense().reshape(dense.weight.shape)
        dense.load_state_dict({"weight": weight, **({} if self.bias is None else {"bias": self.bias})})
        return dense

    def spec(self) -> sparse.Convolution:
        """Return the layer as the kernels know it."""
        return sparse.Convolution(self.rows, self.kernel_size, self.bias, self.stride, self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve. A ValueError names the shape that does not fit, a TypeError a dtype that is not float32."""
        check_images(self, x, self.in_channels, self.kernel_size, self.padding)
        _need_float32(self, x)
        return self._run(x)

    def extra_repr(self) -> str:
        """Show sizes and sparsity."""
        sizes = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{sizes}, padding={self.padding}, bias={self.bias is not None}, sparsity={self.sparsity:.2%}"


def _fixed(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False  # kernels have copies in an order of their own: a change would not reach them
    return copy


def _need_kind(made: type, layer: nn.Module, kind: type[nn.Module]) -> None:
    if not isinstance(layer, kind):
        raise TypeError(
            f"{made.__name__} is made of an nn.{kind.__name__}, not {type(layer).__name__}: give the layer in float32 "
            "that it was made of"
        )


def _rows_of(layer: nn.Linear | nn.Conv2d) -> sparse.Rows:
    weight = layer.weight.data
    check_finite(weight, f"the weight of {layer!r}")
    return sparse.Rows.from_dense(weight.reshape(len(weight), -1))


def _need_float32(layer: nn.Module, x: Tensor) -> None:
    if x.dtype != np.float32:
        raise TypeError(f"{type(layer).__name__} computes in float32, got {x.dtype}")
