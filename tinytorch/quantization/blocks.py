"""A model as blocks: what is computed together, between one rounding to codes and the next."""

from __future__ import annotations

from dataclasses import dataclass

from tinytorch import nn
from tinytorch.nn.queue import LayerQueue


@dataclass(frozen=True)
class Block:
    """Layers that become one layer of whole numbers, or one that stays in float32.

    Attributes
    ----------
    path
        Of its first layer in the model.
    layers
        In the order of computation.
    core
        The layer that it is made of: a Conv2d, Linear, pooling layer, or, if `is_float`, any other.
    norm
        The batch norm behind a convolution.
    relu
        Whether negative numbers become zero at its end.
    pool
        Side of the windows of a max pooling in it that do not overlap; 1 for none.
    """

    path: str
    layers: tuple[nn.Module, ...]
    core: nn.Module
    norm: nn.BatchNorm2d | None = None
    relu: bool = False
    pool: int = 1
    is_float: bool = False


def split(model: nn.Module, unsupported: str = "error") -> list[Block]:
    """Cut a model into blocks, in the order of computation.

    A convolution takes with it the BatchNorm2d, ReLU and MaxPool2d behind it, a linear layer the Flatten before it and
    the ReLU behind. Dropout needs no block: it does nothing in evaluation.

    Raises
    ------
    ValueError
        If the model is no `nn.Sequential`, or has a layer that cannot be quantized (the message gives its path) and
        `unsupported` is "error". If it is "float", such a layer becomes a block of its own.
    """
    if unsupported not in ("error", "float"):
        raise ValueError(f'unsupported must be "error" or "float", not {unsupported!r}')
    rest = LayerQueue(model)
    blocks: list[Block] = []
    flatten: tuple[nn.Module, ...] = ()
    while rest:
        path, core = rest.pop()
        if isinstance(core, nn.Conv2d):
            blocks.append(_convolution(path, core, rest))
        elif isinstance(core, nn.Linear):
            relu = rest.take(nn.ReLU)
            blocks.append(Block(path, (*flatten, core, *relu), core, relu=bool(relu)))
            flatten = ()
        elif isinstance(core, nn.MaxPool2d | nn.AvgPool2d):
            blocks.append(Block(path, (core,), core))
        elif isinstance(core, nn.Flatten):
            flatten = (core,)  # codes lie in a row already
        elif unsupported == "error":
            raise ValueError(
                f"{core!r} at {path!r} cannot be quantized there: {_WHY}. "
                'unsupported="float" leaves it in float32, with a rounding before and behind it'
            )
        else:
            blocks.append(Block(path, (*flatten, core), core, is_float=True))
            flatten = ()
    if all(block.is_float for block in blocks):
        raise ValueError("there is nothing to quantize: the model has no convolution, linear or pooling layer")
    return blocks


_WHY = (
    "codes go through Conv2d (with BatchNorm2d, ReLU and MaxPool2d behind it), Linear (with ReLU), pooling, Flatten "
    "and Dropout"
)


def _convolution(path: str, core: nn.Conv2d, rest: LayerQueue) -> Block:
    layers, norm, relu, pool = rest.take_behind(nn.MaxPool2d)  # a mean is rounded anew: by a layer of its own
    return Block(path, (core, *layers), core, norm, relu, 1 if pool is None else pool.kernel_size)
