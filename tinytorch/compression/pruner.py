"""`MagnitudePruner`: the smallest weights become zero, and stay so while the others train on."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection

import numpy as np

from tinytorch import nn
from tinytorch.compression.schedule import OneShot, Schedule
from tinytorch.compression.sparsity import Sparsity, measure_sparsity, prunable

_pruned: weakref.WeakSet[nn.Parameter] = weakref.WeakSet()  # weights that a pruner holds at zero


class MagnitudePruner:
    """Sets the weights of smallest magnitude to zero.

    ``pruner = MagnitudePruner(0.9).prepare(model)``; after each step of the optimizer `pruner.step()`, which holds the
    zeros and follows the schedule; at the end `pruner.finalize()`. To prune without training on, leave out the steps.

    Parameters
    ----------
    sparsity
        The share of weights that shall be zero at the end, of all convolutions and linear layers together; biases and
        norms are not pruned.
    scope
        "global": one threshold for the whole model, so that layers differ in sparsity; "layer": that share of each.
    schedule
        When: `OneShot()` before the first step, or a `GradualSchedule`.
    exclude
        Paths of layers that are left alone. They do not count.

    Raises
    ------
    ValueError
        If sparsity lies outside of 0 ... 1, 1 excluded, or there is no such scope.

    Source: Han et al., "Learning both weights and connections for efficient neural networks" (2015), section 3.
    """

    def __init__(
        self,
        sparsity: float,
        scope: str = "global",
        schedule: Schedule | None = None,
        exclude: Collection[str] = (),
    ) -> None:
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity is the share of zeros: it lies in 0 ... 1, 1 excluded, got {sparsity}")
        if scope not in ("global", "layer"):
            raise ValueError(f'scope must be "global" or "layer", not {scope!r}')
        self.sparsity, self.scope, self.schedule = sparsity, scope, OneShot() if schedule is None else schedule
        self.exclude = frozenset(exclude)
        self.steps = 0
        self._model: nn.Module | None = None
        self._weights: dict[str, nn.Parameter] = {}
        self._masks: dict[str, np.ndarray] = {}

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Which weights are kept, by the path of their layer: truth values of the weight's shape."""
        return dict(self._masks)

    def prepare(self, model: nn.Module) -> MagnitudePruner:
        """Take hold of a model's weights, and prune as the schedule says before the first step. Returns self.

        Raises
        ------
        RuntimeError
            If this pruner, or another one, holds the model already: `finalize` first.
        ValueError
            If there is nothing to prune, a layer is empty, all zero or holds NaN (the message gives its path), or
            `exclude` names a layer that there is not. The model is unchanged.
        """
        if self._model is not None:
            raise RuntimeError("this pruner holds a model already: finalize() it first, or make another pruner")
        layers = dict(prunable(model))
        if unknown := self.exclude - layers.keys():
            raise ValueError(f"exclude names {sorted(unknown)}, but the layers are {list(layers)}")
        weights = {path: layer.weight for path, layer in layers.items() if path not in self.exclude}
        if not weights:
            raise ValueError("there is nothing to prune: no convolution or linear layer is left")
        for path, weight in weights.items():
            _check(path, weight)
        self._model, self._weights = model, weights
        self._masks = {path: np.ones(weight.shape, bool) for path, weight in weights.items()}
        _pruned.update(weights.values())
        self.steps = 0
        self._follow()
        return self

    def step(self) -> None:
        """Hold the zeros after a step of the optimizer, and choose more of them if the schedule says so.

        A RuntimeError if the pruner holds no model.
        """
        self._need_model()
        self.steps += 1
        self._follow()

    def finalize(self) -> nn.Module:
        """Let go of the model: its zeros are ordinary weights from now on. Returns the model.

        A RuntimeError if the pruner holds no model.
        """
        model = self._need_model()
        self._hold()
        _pruned.difference_update(self._weights.values())
        self._model, self._weights = None, {}
        return model

    def report(self) -> Sparsity:
        """Return how much of each layer is zero. A RuntimeError if the pruner holds no model."""
        return measure_sparsity(self._need_model())

    def _need_model(self) -> nn.Module:
        if self._model is None:
            raise RuntimeError("this pruner holds no model: call prepare(model) first")
        return self._model

    def _follow(self) -> None:
        self._hold()
        if self.schedule.is_due(self.steps):
            self._choose(self.schedule.at(self.steps, self.sparsity))
            self._hold()

    def _hold(self) -> None:
        for path, weight in self._weights.items():
            weight.data[~self._masks[path]] = 0.0  # assigned, not multiplied: no -0.0, and NaN does not survive

    def _choose(self, sparsity: float) -> None:
        """Choose the masks for so much sparsity. What was pruned is zero, the smallest of all, and stays pruned."""
        groups = [list(self._weights)] if self.scope == "global" else [[path] for path in self._weights]
        for paths in groups:
            sizes = np.concatenate([np.abs(self._weights[path].data).ravel() for path in paths])
            # what a mask excludes comes first, also before a weight that training has made zero
            kept = np.concatenate([self._masks[path].ravel() for path in paths])
            order = np.lexsort((sizes, kept))
            keep = np.ones(len(sizes), bool)
            keep[order[: max(_count(sparsity, len(sizes)), int((~kept).sum()))]] = False
            start = 0
            for path in paths:
                shape = self._weights[path].shape
                self._masks[path] = keep[start : start + math.prod(shape)].reshape(shape)
                start += math.prod(shape)


def _count(sparsity: float, size: int) -> int:
    """Return how many of so many weights to prune: the nearest whole number, but never all."""
    return min(round(sparsity * size), size - 1)


def _check(path: str, weight: nn.Parameter) -> None:
    where = f"the layer at {path!r}" if path else "the layer"
    if weight in _pruned:
        raise RuntimeError(f"{where} is held by a pruner: finalize() that one first")
    if not weight.data.size:
        raise ValueError(f"{where} has no weights")
    if not np.isfinite(weight.data).all():
        raise ValueError(f"{where} has {int((~np.isfinite(weight.data)).sum())} weights that are NaN or infinite")
    if not weight.data.any():
        raise ValueError(f"{where} is all zero: no weight of it is smaller than another")
