"""How much of a model is zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinytorch import nn


@dataclass(frozen=True)
class LayerSparsity:
    """A layer by its path in the model and its `kind`, the class; how many weights it has, and how many are zero."""

    path: str
    kind: str
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class Sparsity:
    """That of all layers with a weight, in the order of the model; `print` shows them as a table."""

    layers: tuple[LayerSparsity, ...]

    @property
    def weights(self) -> int:
        """The number of weights, biases not counted."""
        return sum(layer.weights for layer in self.layers)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """The share of zeros among all."""
        return self.zeros / self.weights if self.weights else 0.0

    def __str__(self) -> str:
        rows = [(f"{layer.path} {layer.kind}", layer.weights, layer.zeros, layer.sparsity) for layer in self.layers]
        rows.append(("all", self.weights, self.zeros, self.sparsity))
        width = max(len(name) for name, *_ in rows)
        return "\n".join(f"{name:{width}} {n:9,} weights {zeros:9,} zero {s:7.2%}" for name, n, zeros, s in rows)


def prunable(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """Yield (path, layer) of the layers whose weights can be pruned; one that is shared comes once."""
    seen: set[int] = set()
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and id(layer.weight) not in seen:
            seen.add(id(layer.weight))
            yield path, layer


def measure_sparsity(model: nn.Module) -> Sparsity:
    """Count the zeros in the weights of all convolutions and linear layers.

    >>> layer = nn.Linear(4, 1)
    >>> layer.weight.data[0, :3] = 0
    >>> measure_sparsity(layer).sparsity
    0.75
    """
    return Sparsity(
        tuple(
            LayerSparsity(path, type(layer).__name__, layer.weight.data.size, int((layer.weight.data == 0).sum()))
            for path, layer in prunable(model)
        )
    )
