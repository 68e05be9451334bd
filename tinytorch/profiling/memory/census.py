"""What an array is for, told from the call that is given it or makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinytorch.autograd import Variable
from tinytorch.nn.attention import PastKeyValue
from tinytorch.nn.cache import KVCache
from tinytorch.nn.module import Module, Parameter
from tinytorch.optim import Optimizer
from tinytorch.profiling.dispatch import Call
from tinytorch.profiling.memory.tensors import Block, LiveTensors, arrays_in


class Census:
    """Counts the framework's arrays among `tensors`, as calls begin and end.

    * "parameters", "buffers", "optimizer state", "cache": of the modules, optimizers and caches that it has met;
    * "activations": what an operation returns, and what it saves for its derivative;
    * "gradients": what derivatives return, and what is added up in `grad`;
    * "inputs": what operations are given from elsewhere, such as the batch.

    Parameters
    ----------
    path
        Gives a module's path.
    """

    def __init__(self, path: Callable[[Module | None], str]) -> None:
        self.tensors = LiveTensors()
        self._path = path
        self._met: set[int] = set()

    def meet(self, module: Module) -> None:
        """Count the parameters, gradients and buffers of a module and of all below it."""
        if id(module) in self._met:
            return
        for path, below in module.named_modules(self._path(module)):
            self._met.add(id(below))
            for name, value in vars(below).items():
                full = f"{path}.{name}" if path else name
                if isinstance(value, Parameter):
                    self._meet_parameter(value, full)
                elif name in below._buffers:
                    self.tensors.add(value, "buffers", full)

    def meet_optimizer(self, optimizer: Optimizer) -> None:
        """Count the parameters of an optimizer, their gradients, and what it keeps for each of them."""
        for i, (parameter, state) in enumerate(zip(optimizer.params, optimizer.state, strict=True)):
            name = self._meet_parameter(parameter, f"parameter {i} of {type(optimizer).__name__}")
            for slot, array in state.items():
                self.tensors.add(array, "optimizer state", f"{slot} of {name}")

    def meet_cache(self, cache: Any, name: str) -> None:
        """Count the arrays that are attributes of a cache, or in lists there."""
        for attribute, value in vars(cache).items():
            for array in arrays_in(value):
                self.tensors.add(array, "cache", f"{attribute} of {name}")

    def _meet_parameter(self, parameter: Variable, name: str) -> str:
        known = self.tensors.find(parameter.data) or self.tensors.add(parameter.data, "parameters", name)
        name = known.name if known else name
        if parameter.grad is not None:
            self.tensors.add(parameter.grad.data, "gradients", f"gradient of {name}")
        return name

    def before(self, call: Call) -> None:
        """Count what a call is given."""
        self.tensors.take_gradients()
        if call.kind == "module":
            self.meet(call.target)
            for value in (*call.inputs, *call.options.values()):
                for cache in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(cache, KVCache | PastKeyValue):
                        self.meet_cache(cache, f"the cache of {self._path(call.module)}".removesuffix(" of "))
        elif call.kind == "forward":
            for value in (*call.inputs, *call.options.values()):
                for array in arrays_in(value):
                    self.tensors.add(array, _category(value), f"input of {self._label(call)}")
        elif call.kind == "backward":
            self.tensors.add(call.inputs[0], "gradients", f"gradient of output of {self._label(call)}")
        elif call.kind == "optimizer":
            self.meet_optimizer(call.target)

    def after(self, call: Call) -> list[Block]:
        """Count what a call has made; return what of it was kept for the backward pass."""
        if call.kind == "forward":
            made = [self.tensors.add(call.result.data, "activations", f"output of {self._label(call)}")]
            if call.result.grad_fn is None:
                return []
            for array in arrays_in(call.result.grad_fn.ctx.saved_tensors):
                made.append(self.tensors.add(array, "activations", f"saved by {self._label(call)}"))
                block = self.tensors.find(array)
                if block is not None:
                    block.saved = True
            return [block for block in made if block is not None]
        if call.kind == "backward" and call.node is not None:
            for x, gradient in zip(call.node.inputs, call.result, strict=True):
                if x is not None and gradient is not None and x.requires_grad:
                    known = self.tensors.find(x.data)
                    self._count_gradient(x, gradient, known.name if known else "a tensor")
        elif call.kind == "pass":
            self.tensors.take_gradients()
        return []

    def _count_gradient(self, x: Variable, gradient: Any, name: str) -> None:
        if x.grad_fn is None:  # this one is copied or added to x.grad later in the pass
            self.tensors.add(gradient, "gradients", f"new gradient of {name}")
            self.tensors.expect_gradient(x, name)
        else:
            self.tensors.add(gradient, "gradients", f"gradient of {name}")

    def _label(self, call: Call) -> str:
        return f"{call.target.name} {self._path(call.module)}".rstrip()


def _category(value: Any) -> str:
    if isinstance(value, Parameter):
        return "parameters"
    if isinstance(value, tuple) and any(isinstance(part, tuple) and arrays_in(part) for part in value):
        return "buffers"  # layers of a network, whose weights are no parameters
    before_the_block = isinstance(value, Variable) and value.grad_fn is not None
    return "activations" if before_the_block else "inputs"
