"""`LayerQueue`: the layers of a model one after the other, for what works on several of them at once."""

from __future__ import annotations

from typing import TypeVar

from tinytorch.nn.activation import Dropout
from tinytorch.nn.image import AvgPool2d, MaxPool2d
from tinytorch.nn.module import Module, Sequential

Kind = TypeVar("Kind", bound=Module)
Pool = TypeVar("Pool", MaxPool2d, AvgPool2d)


class LayerQueue:
    """The layers of a model that are left, in the order of computation, without those that do nothing in evaluation."""

    def __init__(self, model: Sequential) -> None:
        self._rest = [(path, layer) for path, layer in model.named_layers() if not isinstance(layer, Dropout)][::-1]

    def __bool__(self) -> bool:
        return bool(self._rest)

    def pop(self) -> tuple[str, Module]:
        """Return path and layer of the next one, and go on."""
        return self._rest.pop()

    def take(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """Return the next layer and go on, if it is of this kind; else nothing."""
        if self._rest and isinstance(layer := self._rest[-1][1], kind):
            self._rest.pop()
            return (layer,)
        return ()

    def take_pool(self, kind: type[Pool]) -> tuple[Pool, ...]:
        """The same for pooling whose windows neither overlap nor leave gaps."""
        if self._rest and isinstance(layer := self._rest[-1][1], kind) and layer.stride == layer.kernel_size:
            return self.take(kind)
        return ()
