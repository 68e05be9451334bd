"""Reverse-mode automatic differentiation over NumPy arrays.

Three ideas, in the order in which you need them:

* `Function`: one operation; `forward` computes it, `backward` is its derivative.
* `Variable`: an array together with the `Function` call that made it.
* `Variable.backward`: walks those calls from the last to the first.

`tinytorch.Tensor` is a `Variable` with operators (`tinytorch/tensor.py`).
Source: Baydin et al., "Automatic differentiation in machine learning: a survey", JMLR 18 (2018), section 3.2.
"""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any, ClassVar, TypeVar

import numpy as np

V = TypeVar("V", bound="Variable")


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Tell whether operations record what `backward` needs; thread-local, true at the start."""
    return _mode.enabled


class no_grad(ContextDecorator):
    """Switch recording off, as a context (`with no_grad():`) or as a decorator (`@no_grad()`)."""

    _previous: list[bool]

    def __init__(self) -> None:
        self._previous = []

    def _recreate_cm(self) -> no_grad:
        return no_grad()  # each call of a decorated function its own: threads must not share `_previous`

    def __enter__(self) -> None:
        self._previous.append(_mode.enabled)
        _mode.enabled = False

    def __exit__(self, *exc: object) -> None:
        _mode.enabled = self._previous.pop()


class Context:
    """What one call of a `Function` keeps for its `backward`."""

    saved_tensors: tuple[Any, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *values: Any) -> None:
        """Keep arrays (or anything else) until `backward` reads them from `saved_tensors`."""
        self.saved_tensors = values


class Function:
    """One differentiable operation. Subclasses write `forward` and, under it, `backward`.

    `forward(ctx, *inputs, **options)` sees arrays where the caller gave variables, and returns one array.
    `backward(ctx, grad_output)` returns one gradient for each positional input: an array of the input's shape,
    or None where there is none. An input whose `ctx.needs_input_grad` is false may be given None to save work.
    """

    name: ClassVar[str]
    watched: ClassVar[bool] = False  # whether a profiler is at work, which hears of what goes through `apply`

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__

    @staticmethod
    def forward(ctx: Context, *inputs: Any, **options: Any) -> np.ndarray:
        """Compute the operation on arrays."""
        raise NotImplementedError("a Function needs a forward")

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        """Return the gradient of every positional input."""
        raise NotImplementedError("this Function has no derivative")

    @classmethod
    def apply(cls, *inputs: Any, **options: Any) -> Any:
        """Run `forward` on the inputs' arrays and, where a gradient may be asked for, record the call.

        Returns
        -------
        Variable
            Of the same kind as the first variable among the inputs.

        Raises
        ------
        TypeError
            If there is no variable among them.
        """
        ctx = Context()
        variables = [x if isinstance(x, Variable) else None for x in inputs]
        ctx.needs_input_grad = tuple(v is not None and v.requires_grad for v in variables)
        first = next((v for v in variables if v is not None), None)
        if first is None:
            kinds = ", ".join(type(x).__name__ for x in inputs)
            raise TypeError(f"{cls.__name__} needs at least one Tensor, got {kinds}")
        data = cls.forward(
            ctx, *(x if v is None else v.data for x, v in zip(inputs, variables, strict=True)), **options
        )
        out = first._like(data)
        if _mode.enabled and any(ctx.needs_input_grad):
            out.requires_grad = True
            out.grad_fn = Node(cls, ctx, variables)
        return out


class Node:
    """A recorded call: the function, its context and the variables it was given."""

    __slots__ = ("ctx", "function", "inputs")

    def __init__(self, function: type[Function], ctx: Context, inputs: list[Variable | None]) -> None:
        self.function, self.ctx, self.inputs = function, ctx, inputs

    def backward(self, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        """Return the gradients of the inputs, once: what the call had kept is freed. A RuntimeError if asked again."""
        if self.ctx is None:
            raise RuntimeError(f"{self} was walked before and its saved arrays are freed: run forward again")
        grads = self.function.backward(self.ctx, grad_output)
        self.ctx = None  # type: ignore[assignment]  # frees the saved arrays as early as possible
        return grads

    def __repr__(self) -> str:
        return f"<{self.function.__name__}Backward>"


class Variable:
    """An array in the graph: `data`, its gradient `grad`, and the call `grad_fn` that made it (None for a leaf).

    A TypeError if integers are to require a gradient.
    """

    data: np.ndarray
    grad: Variable | None
    grad_fn: Node | None
    requires_grad: bool

    def __init__(self, data: np.ndarray, requires_grad: bool = False) -> None:
        if requires_grad and not np.issubdtype(data.dtype, np.floating):
            raise TypeError(f"only floating-point tensors can require gradients, this one is {data.dtype}")
        self.data, self.grad, self.grad_fn, self.requires_grad = data, None, None, requires_grad

    def _like(self: V, data: np.ndarray) -> V:
        """Wrap a result: subclasses say of which kind."""
        return type(self)(data)

    def backward(self, gradient: np.ndarray | None = None) -> None:
        """Add d(self)/d(leaf) to `leaf.grad` of every leaf that requires a gradient.

        The graph is taken apart on the way, and what it held is freed, so that a second call on it is an error.

        Parameters
        ----------
        gradient
            d(loss)/d(self), of self's shape. May be left out for a scalar, where it is 1.

        Raises
        ------
        RuntimeError
            If self does not require a gradient, is no scalar and has no `gradient`, or was walked before.
        ValueError
            If `gradient` has another shape than self.
        """
        if not self.requires_grad:
            raise RuntimeError("backward() on a tensor that does not require a gradient: no input of it did")
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(f"backward() without a gradient needs a scalar, not shape {self.data.shape}")
            gradient = np.ones_like(self.data)
        gradient = np.asarray(gradient, dtype=self.data.dtype)
        if gradient.shape != self.data.shape:
            raise ValueError(f"the gradient has shape {gradient.shape}, the tensor {self.data.shape}")

        gradients: dict[int, np.ndarray] = {id(self): gradient}
        order = _topological_order(self)
        while order:
            variable = order.pop()  # and forgets it: what nobody else holds is freed on the way
            grad_output = gradients.pop(id(variable))
            node = variable.grad_fn
            if node is None:
                _accumulate(variable, grad_output)
                continue
            for x, g in zip(node.inputs, node.backward(grad_output), strict=True):
                if x is None or g is None or not x.requires_grad:
                    continue
                if g.shape != x.data.shape:
                    raise RuntimeError(f"{node} returned a gradient of shape {g.shape} for shape {x.data.shape}")
                known = gradients.get(id(x))
                gradients[id(x)] = g if known is None else known + g
            node.inputs = []


def _accumulate(leaf: Variable, gradient: np.ndarray) -> None:
    # a copy, because one array may be the gradient of several leaves (x + y)
    total = gradient.copy() if leaf.grad is None else leaf.grad.data + gradient
    leaf.grad = leaf._like(np.asarray(total, leaf.data.dtype))  # float32 stays float32 also where float64 was mixed in


def _topological_order(root: Variable) -> list[Variable]:
    """List the variables that root depends on and that require gradients, inputs before outputs."""
    order: list[Variable] = []
    seen: set[int] = set()
    stack: list[tuple[Variable, bool]] = [(root, False)]  # no recursion: graphs get deeper than Python's stack
    while stack:
        variable, inputs_done = stack.pop()
        if inputs_done:
            order.append(variable)
        elif id(variable) not in seen:
            seen.add(id(variable))
            stack.append((variable, True))
            if variable.grad_fn is not None:
                stack.extend((x, False) for x in variable.grad_fn.inputs if x is not None and x.requires_grad)
    return order
