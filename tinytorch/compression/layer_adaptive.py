"""`LayerAdaptivePruner`: one threshold for all layers, on what a weight is within its own layer."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.schedule import Schedule


class LayerAdaptivePruner(MagnitudePruner):
    """Sets to zero the weights of smallest score: w^2 over the sum of the squares in its layer that are not smaller.

    Within a layer that is the order of magnitudes. Across layers it does not matter how large a layer's weights are
    altogether, and a layer's last weight, whose score is 1, goes only after all others of the model. Life and arguments
    are those of `MagnitudePruner`, the sparsity that of the whole model.

    Source: Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning" (2021), section 2, equation 1.
    """

    def __init__(self, sparsity: float, schedule: Schedule | None = None, exclude: Collection[str] = ()) -> None:
        super().__init__(sparsity, "global", schedule, exclude)

    def _choose(self) -> None:
        scores = [_scores(weight.data, self._masks[path]) for path, weight in self._weights.items()]
        every = np.concatenate(scores)
        pruned = int((every < 0).sum())
        wanted = round(self.schedule.at(self.steps, self.sparsity) * len(every))
        keep = np.ones(len(every), bool)
        keep[np.argsort(every, kind="stable")[: max(pruned, min(wanted, len(every) - len(scores)))]] = False
        ends = np.cumsum([len(each) for each in scores])
        for (path, mask), kept in zip(self._masks.items(), np.split(keep, ends[:-1]), strict=True):
            self._masks[path] = kept.reshape(mask.shape)


def _scores(weight: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the scores of a layer's weights (size,); -1 for what is pruned, so that it stays so."""
    squares = weight.ravel().astype(np.float64) ** 2
    order = np.argsort(-squares, kind="stable")
    not_smaller = np.empty_like(squares)
    not_smaller[order] = np.cumsum(squares[order])
    scores = np.divide(squares, not_smaller, out=np.zeros_like(squares), where=not_smaller > 0)
    scores[~kept.ravel()] = -1
    return scores
