"""What an optimisation has to do, found in another way than by doing it: outputs, multiplications and bytes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch import nn


@dataclass(frozen=True)
class Layer:
    """A layer's weight as a matrix (outputs, inputs): how many numbers of it are zero, at how many places it works."""

    path: str
    outputs: int
    inputs: int
    zeros: int
    places: int

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.outputs * self.inputs

    @property
    def dense_macs(self) -> int:
        """Multiplications, zeros among them."""
        return self.size * self.places

    @property
    def sizes(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.outputs, self.inputs

    @property
    def sparse_bytes(self) -> int:
        """Bytes of values, of the smallest indices that will do, and of the beginnings of the rows."""
        index = 1 if self.inputs <= 256 else 2 if self.inputs <= 65536 else 4
        return (self.size - self.zeros) * (4 + index) + 4 * (self.outputs + 1)


def layers_of(model: nn.Module, side: int = 28, length: int = 256) -> list[Layer]:
    """Return the layers of a model of float layers: on images with `side` pixels, or texts of `length` positions."""
    found = []
    is_text = isinstance(model, nn.GPT)
    for path, layer in model.named_modules():
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            side //= layer.kernel_size
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.data.reshape(len(layer.weight.data), -1)
            places = side * side if isinstance(layer, nn.Conv2d) else length if is_text else 1
            found.append(Layer(path, *weight.shape, int((weight == 0).sum()), places))
    return found


def flops_of_whole_numbers(layers: list[Layer], pixels: int = 784) -> int:
    """Return the operations of a CNN on codes: to round the image, products, bias and multiplier of each sum, pooling.

    Rows and columns that pooling by 2 drops are not computed.
    """
    total = 3 * pixels
    for layer in layers:
        if layer.places == 1:
            total += layer.outputs * (2 * layer.inputs + 2)
        else:
            places = (math.isqrt(layer.places) // 2 * 2) ** 2
            total += layer.outputs * places * (2 * layer.inputs + 2 + 1)
    return total


def silenced(model: nn.Sequential, ratio: float) -> nn.Sequential:
    """Return the model with the smallest filters, by the sum of their weights' magnitudes, all zero with what follows.

    Nothing is removed: their channels are zero wherever they are read.
    """
    model, gone = copy.deepcopy(model), np.array([], int)
    for _, layer in model.named_layers():
        if isinstance(layer, nn.Conv2d):
            sums = np.abs(layer.weight.data).sum(axis=(1, 2, 3))
            gone = np.argsort(sums)[: round(ratio * len(sums))]
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            layer.weight.data[gone] = 0
            if layer.bias is not None:
                layer.bias.data[gone] = 0
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean[gone] = 0
    return model


def with_fewer_filters(layers: list[Layer], ratio: float) -> list[tuple[int, int]]:
    """Return outputs and inputs of each layer when so many filters of the convolutions are gone."""
    found, share = [], (1, 1)  # channels that are left of those that come in
    for layer in layers:
        inputs = layer.inputs * share[0] // share[1]
        kept = layer.outputs - round(ratio * layer.outputs) if layer.places > 1 else layer.outputs
        share = kept, layer.outputs
        found.append((kept, inputs))
    return found


def of_low_rank(model: nn.Sequential, energy: float) -> nn.Sequential:
    """Return the model with what its linear layers lose by it taken from their weights, which keep their shapes."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data[...] = lowered(layer.weight.data, energy)[0]
    return model


def of_low_rank_text(model: nn.GPT, energy: float) -> nn.GPT:
    """Return the same of a GPT's feed-forward layers."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.mlp = of_low_rank(block.mlp, energy)
    return model


def lowered(weight: np.ndarray, energy: float) -> tuple[np.ndarray, int]:
    """Return the nearest matrix of low rank and that rank, or the matrix and 0 where two factors are no smaller.

    Of singular values as eigenvalues of the product with itself, which is how they are defined.
    """
    w = weight.astype(np.float64)
    squares, vectors = np.linalg.eigh(w @ w.T)
    left_out = np.cumsum(squares.clip(0)) / squares.clip(0).sum()  # of the smallest
    rank = int((left_out > (1 - energy) * (1 + 1e-9)).sum())
    if rank * sum(w.shape) >= np.count_nonzero(w):
        return weight, 0
    kept = vectors[:, len(w) - rank :]
    return (kept @ (kept.T @ w)).astype(np.float32), rank


def with_low_rank(weights: list[np.ndarray], energy: float) -> list[tuple[int, int]]:
    """Return outputs and inputs of what linear layers become."""
    found = []
    for weight in weights:
        rank = lowered(weight, energy)[1]
        outputs, inputs = weight.shape
        found += [(rank, inputs), (outputs, rank)] if rank else [(outputs, inputs)]
    return found


def zeroed(model: Any, sparsity: float) -> Any:
    """Return the model with every weight at or below one threshold zero: the one that so many lie below."""
    model = copy.deepcopy(model)
    weights = [layer.weight.data for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    sizes = np.sort(np.concatenate([np.abs(weight).ravel() for weight in weights]))
    threshold = sizes[round(sparsity * len(sizes)) - 1]
    for weight in weights:
        weight[np.abs(weight) <= threshold] = 0
    return model
