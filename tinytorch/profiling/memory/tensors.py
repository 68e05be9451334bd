"""Which arrays of the framework are alive, and what each of them is for.

An array is known by the memory that it owns: views of it are found by following `base` and count once, whole. Only weak
references are kept, so that watching keeps nothing alive; when the memory goes, they tell. That is at once in CPython,
where the last reference frees it, since the graph that autograd records has no cycles.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.autograd import Variable
from tinytorch.profiling.memory.traced import tracing

CATEGORIES = ("parameters", "buffers", "optimizer state", "cache", "gradients", "activations", "inputs")


class Block:
    """Memory that an array owns.

    Attributes
    ----------
    category
        One of `CATEGORIES`.
    name
        What it is: "0.weight", "output of Conv2d 0", "gradient of 0.weight".
    shape
        Of the array that was seen first, if that is all of the memory, else of the array that owns it.
    nbytes
        All of the memory.
    born, died
        When, counted in births and deaths; None as long as it lives.
    saved
        Whether a derivative asked for it with `save_for_backward`.
    """

    __slots__ = ("_reference", "born", "category", "died", "name", "nbytes", "saved", "shape")

    def __init__(self, shape: tuple[int, ...], nbytes: int, category: str, name: str, born: int) -> None:
        self.category, self.name, self.shape, self.nbytes = category, name, shape, nbytes
        self.born, self.saved = born, False
        self.died: int | None = None
        self._reference: _Reference | None = None

    def __repr__(self) -> str:
        return f"<{self.category}: {self.name} {self.shape}>"


class LiveTensors:
    """The arrays that are alive, by category, and the moment at which they were the most bytes."""

    def __init__(self) -> None:
        self.bytes = dict.fromkeys(CATEGORIES, 0)
        self.peak = dict(self.bytes)
        self._clock, self._peak_clock, self._total, self._peak_total = 0, 0, 0, 0
        self._history: list[Block] = []
        self._alive: dict[int, Block] = {}
        self._leaves: dict[int, tuple[Variable, str]] = {}

    def add(self, array: np.ndarray, category: str, name: str) -> Block | None:
        """Count the memory of an array, unless it is known; return it if it is new."""
        owner = owner_of(array)
        if id(owner) in self._alive or not owner.nbytes:
            return None
        self._clock += 1
        shape = array.shape if array.size == owner.size else owner.shape
        block = Block(shape, owner.nbytes, category, name, self._clock)
        block._reference = _Reference(owner, self._gone)
        self._alive[id(owner)] = block
        self._history.append(block)
        self.bytes[category] += block.nbytes
        self._total += block.nbytes
        if self._total > self._peak_total:
            self._peak_total, self._peak_clock, self.peak = self._total, self._clock, dict(self.bytes)
        return block

    def find(self, array: np.ndarray) -> Block | None:
        """Return what is known of the memory of an array."""
        return self._alive.get(id(owner_of(array)))

    def at_peak(self) -> list[Block]:
        """Return what was alive when it was the most bytes, the largest first."""
        at = self._peak_clock
        alive = [b for b in self._history if b.born <= at and (b.died is None or b.died > at)]
        return sorted(alive, key=lambda block: -block.nbytes)

    def expect_gradient(self, leaf: Variable, name: str) -> None:
        """Count the gradient of a leaf as soon as it is there: `backward` gives it after the calls that it reports."""
        self._leaves[id(leaf)] = leaf, name

    def take_gradients(self) -> None:
        """Count the gradients that were expected and have come."""
        for key, (leaf, name) in list(self._leaves.items()):
            if leaf.grad is not None and self.add(leaf.grad.data, "gradients", f"gradient of {name}"):
                del self._leaves[key]

    def end(self) -> None:
        """Stop counting: what is alive now stays on the books."""
        self.take_gradients()
        self._leaves.clear()
        for block in self._history:
            block._reference = None
        self._alive.clear()

    def _gone(self, reference: _Reference) -> None:
        tracing.pause()
        try:
            self.take_gradients()  # one that was copied from what goes now was alive together with it
            block = self._alive.pop(reference.key)
            self._clock += 1
            block.died = self._clock
            self.bytes[block.category] -= block.nbytes
            self._total -= block.nbytes
        finally:
            tracing.resume()


class _Reference(weakref.ref):
    """A weak reference that still knows the id when the array is gone."""

    __slots__ = ("key",)

    key: int

    def __new__(cls, owner: np.ndarray, callback: Callable[[Any], None]) -> _Reference:
        reference = super().__new__(cls, owner, callback)
        reference.key = id(owner)
        return reference


def owner_of(array: np.ndarray) -> np.ndarray:
    """Return the array whose memory this one looks at, itself if it is no view.

    >>> x = np.zeros((2, 3))
    >>> owner_of(x.T[1:]) is x
    True
    """
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def arrays_in(value: Any) -> list[np.ndarray]:
    """Return the arrays that a value is, wraps or holds in lists and tuples.

    >>> [a.shape for a in arrays_in((np.zeros(2), [np.zeros(3), "text"], 7))]
    [(2,), (3,)]
    """
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Variable):
        return [value.data]
    if isinstance(value, list | tuple):
        return [array for part in value for array in arrays_in(part)]
    return []
