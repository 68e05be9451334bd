"""`LayerQueue`: the layers of a model one after the other, for what works on several of them at once."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from tinytorch.nn.activation import Dropout, ReLU
from tinytorch.nn.image import AvgPool2d, MaxPool2d
from tinytorch.nn.module import Module, Sequential
from tinytorch.nn.normalization import BatchNorm2d

Kind = TypeVar("Kind", bound=Module)


class Behind(NamedTuple):
    """What follows a convolution and can be done where its sums are written.

    `layers` has all of it in its order; `relu` says whether negative numbers become zero, be it before the largest
    number of a window is taken or after.
    """

    layers: tuple[Module, ...]
    norm: BatchNorm2d | None
    relu: bool
    pool: MaxPool2d | AvgPool2d | None


class LayerQueue:
    """The layers of a model that are left, in the order of computation, without those that do nothing in evaluation.

    Raises
    ------
    ValueError
        If the model is no `nn.Sequential`.
    """

    def __init__(self, model: Module) -> None:
        if not isinstance(model, Sequential):
            raise ValueError(
                f"layers are known to follow one another in an nn.Sequential only, not in a {type(model).__name__}: "
                "wrap its layers in one, or take the model that it was made of"
            )
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

    def take_behind(self, *pools: type[MaxPool2d | AvgPool2d]) -> Behind:
        """Take what may follow a convolution: batch norm, ReLU, and pooling of one of these kinds.

        The pooling's windows neither overlap nor leave gaps. Behind a max pooling, ReLU may also come last.
        """
        norm, relu = self.take(BatchNorm2d), self.take(ReLU)
        pool = self._take_pool(*pools)
        late = self.take(ReLU) if not relu and pool and isinstance(pool[0], MaxPool2d) else ()
        layers = (*norm, *relu, *pool, *late)
        return Behind(layers, norm[0] if norm else None, bool(relu or late), pool[0] if pool else None)

    def _take_pool(self, *kinds: type[MaxPool2d | AvgPool2d]) -> tuple[MaxPool2d | AvgPool2d, ...]:
        if self._rest and isinstance(layer := self._rest[-1][1], kinds) and layer.stride == layer.kernel_size:
            self._rest.pop()
            return (layer,)
        return ()
