"""`SparseModel`: a pruned network for inference, whose layers hand vectors of many images on to one another."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from tinytorch import nn
from tinytorch.autograd import no_grad
from tinytorch.compression.sparse_or_dense import BreakEven, break_even
from tinytorch.compression.sparsity import LayerSparsity, Sparsity
from tinytorch.kernels import sparse
from tinytorch.nn.finite import check_finite
from tinytorch.nn.fuse import fold_batch_norm
from tinytorch.nn.queue import LayerQueue
from tinytorch.ops.sparse import sparse_network
from tinytorch.tensor import Tensor


@dataclass(frozen=True)
class _Part:
    """A layer of the model, with what follows it and is done in one go: in sparse form, or as it was."""

    path: str
    sparse: sparse.Layer | None
    dense: nn.Module | None = None


class SparseModel(nn.Module):
    """A network without its zeros, made by `to_sparse`: float32 (N, ...) -> (N, ...), no gradient.

    Batch norm is part of the weights before it; ReLU and pooling are done where a layer's sums are written.
    """

    def __init__(self, parts: list[_Part]) -> None:
        super().__init__()
        self.training = False
        self._parts = parts
        self._groups = [list(group) for _, group in groupby(parts, lambda part: part.sparse is not None)]
        self._networks: dict[tuple[int, tuple[int, ...]], sparse.Network] = {}

    def forward(self, x: Tensor | np.ndarray) -> Tensor:
        """Return the output. A TypeError if x is not float32, a ValueError if its shape does not fit."""
        array = x.data if isinstance(x, Tensor) else np.asarray(x)
        if array.dtype != np.float32:
            raise TypeError(f"a sparse model computes in float32, got {array.dtype}")
        for number, group in enumerate(self._groups):
            if group[0].sparse is None:
                with no_grad():
                    for part in group:
                        array = part.dense(Tensor(array)).data  # type: ignore[misc]
                continue
            before = array.shape
            if isinstance(group[0].sparse, sparse.Linear):  # works on the last axis, whatever stands before it
                array = array.reshape(math.prod(before[:-1]), before[-1])
            key = number, array.shape[1:]
            if key not in self._networks:  # one for each shape of images
                self._networks[key] = sparse.Network([part.sparse for part in group if part.sparse], array.shape[1:])
            array = sparse_network(array, self._networks[key])
            if isinstance(group[0].sparse, sparse.Linear):
                array = array.reshape(*before[:-1], array.shape[1])
        return Tensor(array)

    @property
    def parts(self) -> tuple[_Part, ...]:
        """Its layers in the order of computation: `sparse`, as the kernels know it, or `dense`, a module."""
        return tuple(self._parts)

    def train(self, mode: bool = True) -> nn.Module:
        """Refuse training mode, by a RuntimeError. Train the dense model, its zeros held by a pruner."""
        if mode:
            raise RuntimeError("a SparseModel cannot be trained: train the dense model while a pruner holds its zeros")
        return super().train(False)

    def report(self) -> Sparsity:
        """Return how many weights each layer has, how many of them are zero, and which layers multiply them anyway."""
        layers = []
        for part in self._parts:
            if (layer := part.sparse) is not None:
                weights = layer.rows.size
                zeros = weights - len(layer.rows.values)
                kind = f"{type(layer).__name__}, {'dense' if layer.dense else 'sparse'}"
                layers.append(LayerSparsity(part.path, kind, weights, zeros))
        return Sparsity(tuple(layers))

    @property
    def nbytes(self) -> int:
        """The bytes of all weights: of sparse layers values, indices, row pointers and biases."""
        total = 0
        for part in self._parts:
            if (layer := part.sparse) is not None:
                total += 4 * layer.rows.size if layer.dense else layer.rows.nbytes
                total += 0 if layer.bias is None else layer.bias.nbytes
            elif part.dense is not None:
                total += sum(array.nbytes for array in part.dense.state_dict().values())
        return total


def to_sparse(model: nn.Sequential, threshold: BreakEven | None = None) -> SparseModel:
    """Return a pruned model without its zeros; the model itself is left as it is, and shares no memory with it.

    Convolutions take the BatchNorm2d, ReLU and pooling behind them with them, linear layers the ReLU. What cannot be
    sparse, such as a pooling alone, stays as it is between them. A layer with too few zeros for its sparse form to be
    the faster one keeps them: `SparseModel.report` says which.

    Parameters
    ----------
    threshold
        The share of zeros from which on a layer is sparse; left out, `break_even()`, as it was measured here.

    Raises
    ------
    ValueError
        If the model is no `nn.Sequential`, has neither convolution nor linear layer, or a weight is NaN or infinite
        (the message gives its layer's path).
    """
    rest, parts = LayerQueue(model), list[_Part]()
    flatten: tuple[nn.Module, ...] = ()
    images = False  # whether images flow, whose last axis a linear layer would take for its features
    while rest:
        path, layer = rest.pop()
        if isinstance(layer, nn.Conv2d):
            parts.append(_Part(path, _convolution(path, layer, rest)))
            images = True
        elif isinstance(layer, nn.Linear) and not images:
            check_finite(layer.weight.data, f"the weight of the layer at {path!r}")
            bias = None if layer.bias is None else layer.bias.data.copy()
            relu = bool(rest.take(nn.ReLU))
            if not (parts and isinstance(parts[-1].sparse, sparse.Convolution)):  # behind one, the network flattens
                parts += [_Part(path, None, copy.deepcopy(each)) for each in flatten]
            parts.append(_Part(path, sparse.Linear(sparse.Rows.from_dense(layer.weight.data), bias, relu)))
            flatten = ()
        elif isinstance(layer, nn.Flatten):
            flatten, images = (layer,), False
        else:
            parts += [_Part(path, None, copy.deepcopy(each).eval()) for each in (*flatten, layer)]
            flatten = ()
    parts += [_Part("", None, copy.deepcopy(each)) for each in flatten]
    if all(part.sparse is None for part in parts):
        raise ValueError("there is nothing to make sparse: the model has no convolution and no linear layer")
    limit = break_even() if threshold is None else threshold
    return SparseModel([_Part(part.path, _chosen(part.sparse, limit), part.dense) for part in parts])


def _chosen(layer: sparse.Layer | None, threshold: BreakEven) -> sparse.Layer | None:
    if layer is None:
        return None
    return replace(layer, dense=layer.rows.sparsity < threshold.of(layer))


def _convolution(path: str, conv: nn.Conv2d, rest: LayerQueue) -> sparse.Convolution:
    behind = rest.take_behind(nn.MaxPool2d, nn.AvgPool2d)
    weight, bias = fold_batch_norm(conv, behind.norm)
    check_finite(weight, f"the weight of the layer at {path!r}")
    rows = sparse.Rows.from_dense(weight.reshape(len(weight), -1))
    side, mean = 1 if behind.pool is None else behind.pool.kernel_size, isinstance(behind.pool, nn.AvgPool2d)
    return sparse.Convolution(rows, conv.kernel_size, bias.copy(), conv.stride, conv.padding, behind.relu, side, mean)
