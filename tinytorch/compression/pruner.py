"""`MagnitudePruner`: the smallest weights become zero, and stay so while the others train on."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from tinytorch.compression.masks import Pruner
from tinytorch.compression.schedule import Schedule


class MagnitudePruner(Pruner):
    """Sets the weights of smallest magnitude to zero.

    ``pruner = MagnitudePruner(0.9).prepare(model)``; after each step of the optimizer `pruner.step()`, which holds the
    zeros and follows the schedule; at the end `pruner.finalize()`. To prune without training on, leave out the steps.

    Source: Han et al., "Learning both weights and connections for efficient neural networks" (2015), section 3.

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
        super().__init__(schedule, exclude)
        self.sparsity, self.scope = sparsity, scope

    def _choose(self) -> None:
        """Choose the masks for the sparsity of this step. What was pruned is the smallest of all, and stays pruned."""
        sparsity = self.schedule.at(self.steps, self.sparsity)
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
