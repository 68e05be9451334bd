"""2:4 sparsity: of each four neighbouring weights the two largest stay, a pattern that hardware can skip."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from tinytorch.compression.masks import Pruner


class SemiStructuredPruner(Pruner):
    """Keeps the n largest of each m neighbouring weights of an output, and sets the others to zero.

    Neighbours stand side by side in a row of ``weight.reshape(out, -1)``: along the inputs of a linear layer, along
    the flattened (C, kh, kw) of a convolution's filter. Where a row's length is no multiple of m, its last group is
    shorter and keeps the n largest of what it has, all of them if those are n or fewer. The masks are chosen once, by
    `prepare`.

    ``pruner = SemiStructuredPruner().prepare(model)``; after each step of the optimizer `pruner.step()`, which holds
    the zeros; at the end `pruner.finalize()`. To prune without training on, leave out the steps.

    Source: Mishra et al., "Accelerating sparse deep neural networks" (2021), section 3.

    Parameters
    ----------
    n, m
        How many of how many neighbours to keep: 0 < n < m.
    exclude
        Paths of layers that are left alone. They do not count.

    Raises
    ------
    ValueError
        If n and m are not in that order.
    """

    def __init__(self, n: int = 2, m: int = 4, exclude: Collection[str] = ()) -> None:
        _check(n, m)
        super().__init__(exclude=exclude)
        self.n, self.m = n, m

    def _choose(self) -> None:
        for path, weight in self._weights.items():
            rows = np.abs(weight.data.reshape(len(weight.data), -1))
            groups = -(-rows.shape[1] // self.m)
            padded = np.full((len(rows), groups * self.m), -1, rows.dtype)  # smaller than any weight: comes last
            padded[:, : rows.shape[1]] = rows
            largest = np.argsort(-padded.reshape(-1, self.m), axis=1, kind="stable")[:, : self.n]
            keep = np.zeros((len(rows) * groups, self.m), bool)
            np.put_along_axis(keep, largest, True, axis=1)
            self._masks[path] = keep.reshape(len(rows), -1)[:, : rows.shape[1]].reshape(weight.shape)


def semi_structured_bytes(weight_shape: tuple[int, ...], itemsize: int, n: int = 2, m: int = 4) -> int:
    """Return the bytes of a weight in packed form: of each m numbers the n that are kept, and where they stood.

    The places take ceil(log2 m) bits for each number kept, 2 at 2:4, rounded up to whole bytes once for the tensor. A
    last, shorter group of a row has as many as it keeps.

    >>> semi_structured_bytes((128, 576), itemsize=1)  # int8: half of the weights, and 2 bits for each
    46080

    Raises
    ------
    ValueError
        If n and m are not 0 < n < m, or the itemsize is not 1 or more.
    """
    _check(n, m)
    if itemsize < 1:
        raise ValueError(f"a number takes 1 byte or more, not {itemsize}")
    whole, rest = divmod(math.prod(weight_shape[1:]), m)
    kept = weight_shape[0] * (whole * n + min(n, rest))
    return kept * itemsize + -(-kept * (m - 1).bit_length() // 8)


def _check(n: int, m: int) -> None:
    if not 0 < n < m:
        raise ValueError(f"n of each m weights are kept, 0 < n < m: got n = {n}, m = {m}")
