"""`Module`: a tree of layers with named parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinytorch.tensor import Tensor


class Parameter(Tensor):
    """A tensor that training changes: a `Module` finds it by being assigned to an attribute.

    A TypeError if the data are no floats: see `Tensor`.
    """

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)


class Module:
    """Base of all layers and models. Assign parameters and sub-modules to attributes; write `forward`."""

    training: bool = True
    changes = 0  # how often an attribute of any module was set: what was learned of a model may be kept until it rises

    def __init__(self) -> None:
        self._buffers: list[str] = []

    def __setattr__(self, name: str, value: Any) -> None:
        Module.changes += 1
        super().__setattr__(name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; subclasses write it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def register_buffer(self, name: str, value: np.ndarray) -> None:
        """Keep an array that is part of the state but not trained, such as a running mean."""
        self._buffers.append(name)
        setattr(self, name, value)

    # The tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the direct sub-modules, in the order of their assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple):
                yield from ((f"{name}.{i}", v) for i, v in enumerate(value) if isinstance(v, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module and all below it, parents first."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter); a parameter that is shared appears once, under its first path."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def num_parameters(self) -> int:
        """Count the trained numbers."""
        return sum(p.numel() for p in self.parameters())

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Module:
        """Set training mode here and below: batch norm uses the batch's statistics, dropout drops. Returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Set evaluation mode here and below. Returns self."""
        return self.train(False)

    # The state

    def _named_arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        yield from ((path, p.data) for path, p in self.named_parameters())
        for path, module in self.named_modules():
            yield from ((f"{path}.{name}" if path else name, getattr(module, name)) for name in module._buffers)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays of all parameters and buffers by path: the arrays themselves, not copies."""
        return dict(self._named_arrays())

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy arrays into the parameters and buffers of the same paths.

        Raises
        ------
        KeyError
            If names are missing or unexpected: lists them. Nothing was copied.
        ValueError
            If a shape differs: names the path and both shapes. Nothing was copied.
        """
        own = self.state_dict()
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise KeyError(f"state of another {type(self).__name__}: missing {missing}, unexpected {unexpected}")
        for path, array in own.items():
            if np.shape(state[path]) != array.shape:
                raise ValueError(f"{path} has shape {array.shape} here and {np.shape(state[path])} in the given state")
        for path, array in own.items():
            array[...] = state[path]

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        body = "".join(f"\n  {line}" for line in children) + "\n" if children else ""
        return f"{type(self).__name__}({self.extra_repr()}{body})"

    def extra_repr(self) -> str:
        """Say in one line what `repr` shows of this layer itself."""
        return ""


class Sequential(Module):
    """Layers one after another: `Sequential(a, b)(x)` is `b(a(x))`. It has a length, and layers by number."""

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        self._order = [str(i) for i in range(len(layers))]
        for name, layer in zip(self._order, layers, strict=True):
            setattr(self, name, layer)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, name) for name in self._order)

    def __getitem__(self, index: int) -> Module:
        layer: Module = getattr(self, self._order[index])
        return layer

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, layer) in the order of computation, the layers of a nested `Sequential` in its place."""
        for name in self._order:
            path, layer = f"{prefix}.{name}" if prefix else name, getattr(self, name)
            if isinstance(layer, Sequential):
                yield from layer.named_layers(path)
            else:
                yield path, layer

    def forward(self, x: Tensor) -> Tensor:
        """Feed x through every layer."""
        for layer in self:
            x = layer(x)
        return x


@contextmanager
def evaluation(model: Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; afterwards each of its modules has the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
