"""`exchange_linears`: other layers in place of a model's linear ones, wherever they stand."""

from __future__ import annotations

import copy
from collections.abc import Callable

from tinytorch.nn.linear import Linear
from tinytorch.nn.module import Module, Parameter


def exchange_linears(model: Module, make: Callable[[Linear], Module | None]) -> Module | None:
    """Return a copy of a model with what `make` returns in place of its linear layers, or None if there are none.

    Looked at are those that are `Linear` itself, and compute as it does; not one whose weight belongs to another layer
    too, as that of a tied head belongs to an embedding. Where `make` returns None the layer stays. What was one layer
    in two places is one afterwards.

    Raises
    ------
    ValueError
        If `make` raises it: the message gets the layer and its path.
    """
    linear = [(p, m) for p, m in model.named_modules() if type(m) is Linear and "forward" not in vars(m)]
    known = {id(layer) for _, layer in linear}
    others = (module for module in model.modules() if id(module) not in known)
    theirs = {id(p) for module in others for p in vars(module).values() if isinstance(p, Parameter)}
    made = dict[int, Module | None]()
    for path, layer in linear:
        if id(layer.weight) not in theirs and id(layer) not in made:
            try:
                made[id(layer)] = make(layer)
            except ValueError as error:
                raise ValueError(f"{layer!r} at {path!r}: {error}") from None
    if not made:
        return None
    # a copy that is told what became of a layer takes that wherever it meets the layer
    copied: Module = copy.deepcopy(model, {key: layer for key, layer in made.items() if layer is not None})
    return copied
