"""`Pruner`: weights that masks hold at zero, from `prepare` to `finalize`; which weights, its subclasses say."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Self

import numpy as np

from tinytorch import nn
from tinytorch.compression.schedule import OneShot, Schedule
from tinytorch.compression.sparsity import Sparsity, measure_sparsity, prunable
from tinytorch.nn.finite import check_finite

_pruned: weakref.WeakSet[nn.Parameter] = weakref.WeakSet()  # weights that a pruner holds at zero


class Pruner:
    """Base of the pruners: takes hold of a model's convolutions and linear layers, and of one mask for each.

    ``pruner.prepare(model)``; after each step of the optimizer `pruner.step()`, which holds the zeros and follows the
    schedule; at the end `pruner.finalize()`. To prune without training on, leave out the steps.

    Parameters
    ----------
    schedule
        When masks are chosen: `OneShot()` before the first step, or a `GradualSchedule`.
    exclude
        Paths of layers that are left alone. They do not count.
    """

    def __init__(self, schedule: Schedule | None = None, exclude: Collection[str] = ()) -> None:
        self.schedule = OneShot() if schedule is None else schedule
        self.exclude = frozenset(exclude)
        self.steps = 0
        self._model: nn.Module | None = None
        self._weights: dict[str, nn.Parameter] = {}
        self._masks: dict[str, np.ndarray] = {}

    def _choose(self) -> None:
        """Choose the masks after `steps` steps. What was pruned stays so."""
        raise NotImplementedError(f"{type(self).__name__} does not say which weights to prune")

    @property
    def model(self) -> nn.Module:
        """The model that is held. A RuntimeError if there is none."""
        if self._model is None:
            raise RuntimeError("this pruner holds no model: call prepare(model) first")
        return self._model

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Which weights are kept, by the path of their layer: truth values of the weight's shape."""
        return dict(self._masks)

    def prepare(self, model: nn.Module) -> Self:
        """Take hold of a model's weights, and prune as the schedule says before the first step. Returns self.

        Raises
        ------
        RuntimeError
            If this pruner, or another one, holds the model already: `finalize` first.
        TypeError
            If it is no `nn.Module`, such as a compiled plan.
        ValueError
            If there is nothing to prune, a layer is empty, all zero or holds NaN (the message gives its path), or
            `exclude` names a layer that there is not. The model is unchanged.
        """
        if self._model is not None:
            raise RuntimeError("this pruner holds a model already: finalize() it first, or make another pruner")
        if not isinstance(model, nn.Module):
            raise TypeError(f"a pruner takes an nn.Module, not {type(model).__name__}: prune before it is compiled")
        layers = dict(prunable(model))
        if unknown := self.exclude - layers.keys():
            raise ValueError(f"exclude names {sorted(unknown)}, but the layers are {list(layers)}")
        weights = {path: layer.weight for path, layer in layers.items() if path not in self.exclude}
        if not weights:
            raise ValueError(
                "there is nothing to prune: no convolution or linear layer is left; prune before layers become "
                "sparse or quantized"
            )
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
        _ = self.model
        self.steps += 1
        self._follow()

    def hold(self) -> None:
        """Set what the masks exclude to zero again; `step` does, and who stops in the middle of one has to."""
        for path, weight in self._weights.items():
            weight.data[~self._masks[path]] = 0.0  # assigned, not multiplied: no -0.0, and NaN does not survive

    def finalize(self) -> nn.Module:
        """Let go of the model: its zeros are ordinary weights from now on. Returns the model.

        A RuntimeError if the pruner holds no model.
        """
        model = self.model
        self.hold()
        _pruned.difference_update(self._weights.values())
        self._model, self._weights = None, {}
        return model

    def report(self) -> Sparsity:
        """Return how much of each layer is zero. A RuntimeError if the pruner holds no model."""
        return measure_sparsity(self.model)

    def _follow(self) -> None:
        self.hold()
        if self.schedule.is_due(self.steps):
            self._choose()
            self.hold()


def _check(path: str, weight: nn.Parameter) -> None:
    where = f"the layer at {path!r}" if path else "the layer"
    if weight in _pruned:
        raise RuntimeError(f"{where} is held by a pruner: finalize() that one first")
    if not weight.data.size:
        raise ValueError(f"{where} has no weights")
    check_finite(weight.data, f"the weight of {where}")
    if not weight.data.any():
        raise ValueError(f"{where} is all zero: no weight of it is smaller than another")
