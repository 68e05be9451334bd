"""Watching a model at work: each call of a module, each operation and its derivative, each step of an optimizer.

While an `Observer` watches, five methods of the framework are exchanged for ones that report to it, and
`Function.watched` is true. When the last one has left, the old methods are back: a program that nobody watches runs the
same code as without this package.

An observer sees the thread in which it was entered, and no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any, Literal

from tinytorch.autograd import Function, Node, Variable
from tinytorch.nn.module import Module
from tinytorch.optim import Optimizer
from tinytorch.profiling.shapes import plain

Kind = Literal["module", "forward", "backward", "pass", "optimizer", "range"]
_NO_OPTIONS: dict[str, Any] = {}


class Call:
    """One call, as observers see it. It holds the arrays: an observer that keeps it keeps them alive.

    Attributes
    ----------
    kind
        "module": a module's; "forward": an operation's; "backward": its derivative's; "pass": `Variable.backward` as
        a whole; "optimizer": a step's; "range": between the ends of a `record_function`.
    name
        The class of the module, the operation's name ("Linear"), with "Backward" behind it for its derivative, the
        class of the optimizer with ".step", or the name of the range.
    target
        The module, the `Function` subclass, the `Variable` or the `Optimizer` itself; None for a range.
    module
        The innermost module in which the call is made; for a derivative, in which its operation was; None outside.
    inputs, options
        The arguments as they were given. For a derivative, the gradient of the output alone.
    node
        For a derivative, what was recorded of its operation: `inputs` (variables, None where there was none) and `ctx`.
    saved
        For a derivative, what its operation had kept for it, without the arrays (`shapes.plain`): they are freed when
        it ends.
    result
        What the call returned, None before it does.
    failed
        Whether it ended in an exception.
    """

    __slots__ = ("failed", "inputs", "kind", "module", "name", "node", "options", "result", "saved", "target")

    def __init__(
        self,
        kind: Kind,
        name: str,
        target: Any,
        module: Module | None,
        inputs: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
        node: Node | None = None,
    ) -> None:
        self.kind, self.name, self.target, self.module = kind, name, target, module
        self.inputs, self.options, self.node = inputs, _NO_OPTIONS if options is None else options, node
        self.saved: tuple[Any, ...] = ()
        self.result: Any = None
        self.failed = False

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class Observer:
    """Base of the instruments: a context that is told of every call between its beginning and its end.

    Subclasses write `enter` and `exit`; neither may change anything, and `exit` must not raise. Calls nest strictly.

    Parameters
    ----------
    model
        Gives the modules their paths, "blocks.0.mlp" as in `state_dict`. A module outside of it is called by its
        class, and those below it "GPT.blocks.0.mlp".

    Raises
    ------
    RuntimeError
        On entering it while it watches, or leaving it in another thread.
    """

    watching = False

    def __init__(self, model: Module | None = None) -> None:
        self._paths: dict[int, tuple[Module, str]] = {}  # the module is kept, so that its id stays its own
        if model is not None:
            self._name(model, "")

    def enter(self, call: Call) -> None:
        """Hear of a call that is about to be made."""

    def exit(self, call: Call) -> None:
        """Hear of the same call when it has ended, with `result` or `failed` set."""

    def path(self, module: Module | None) -> str:
        """Return the path of a module, empty for the model itself and outside of modules."""
        if module is None:
            return ""
        if id(module) not in self._paths:
            self._name(module, type(module).__name__)
        return self._paths[id(module)][1]

    def _name(self, module: Module, prefix: str) -> None:
        for path, below in module.named_modules(prefix):
            self._paths.setdefault(id(below), (below, path))  # a shared one by its first path, as its parameters

    def __enter__(self) -> Any:
        if self.watching:
            raise RuntimeError(f"this {type(self).__name__} is at work already: leave it first, or make another")
        _install(+1)
        _thread.state.observers = (*_thread.state.observers, self)
        self.watching = True
        return self

    def __exit__(self, *exc: object) -> None:
        state = _thread.state
        if self not in state.observers:
            raise RuntimeError(f"this {type(self).__name__} was not entered in this thread")
        self.watching = False
        state.observers = tuple(o for o in state.observers if o is not self)
        _install(-1)


class record_function(ContextDecorator):
    """Name a range of your own code, for whoever watches: `with record_function("load"):`, or as a decorator.

    Ranges nest: a RuntimeError on ending one while another that began within it goes on, or in another thread. A
    generator that yields inside of a range can bring that about.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls: list[tuple[Call, tuple[Observer, ...]]] = []

    def _recreate_cm(self) -> record_function:
        return record_function(self.name)

    def __enter__(self) -> record_function:
        state = _thread.state
        call = Call("range", self.name, None, state.module)
        for observer in state.observers:
            observer.enter(call)
        self._calls.append((call, state.observers))  # begun for all of them: one that was refused leaves nothing behind
        state.ranges.append(call)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        call, observers = self._calls.pop()
        call.failed = kind is not None
        ranges = _thread.state.ranges
        if call not in ranges:
            raise RuntimeError(f"range {self.name!r} ends in another thread than it began in")
        inner = ranges[-1]
        ranges.remove(call)
        if inner is not call:
            raise RuntimeError(f"range {self.name!r} ends while {inner.name!r}, which began within it, goes on")
        for observer in reversed(observers):
            if observer.watching:
                observer.exit(call)


class _State:
    """What one thread is doing."""

    __slots__ = ("module", "observers", "ranges")

    def __init__(self) -> None:
        self.observers: tuple[Observer, ...] = ()  # replaced, never changed: a call ends for those for whom it began
        self.ranges: list[Call] = []
        self.module: Module | None = None


class _Thread(threading.local):
    def __init__(self) -> None:
        self.state = _State()  # one look-up finds all of it: each costs as much as the rest of a report


_thread = _Thread()


def _reported(
    state: _State, call: Call, method: Callable[..., Any], this: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Call a method between the observers' `enter` and `exit`."""
    observers = state.observers
    if len(observers) != 1:  # a single one is the common case, and twice as fast without the bookkeeping
        return _reported_to_all(observers, call, method, this, args, options)
    observer = observers[0]
    observer.enter(call)
    try:
        call.result = result = method(this, *args, **options)
        return result
    except BaseException:
        call.failed = True
        raise
    finally:
        if observer.watching:
            observer.exit(call)


def _reported_to_all(
    observers: tuple[Observer, ...],
    call: Call,
    method: Callable[..., Any],
    this: Any,
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Do the same for several: each that heard of the beginning hears of the end, in reverse order."""
    entered = 0
    try:
        for observer in observers:
            observer.enter(call)
            entered += 1
        call.result = result = method(this, *args, **options)
        return result
    except BaseException:
        call.failed = True
        raise
    finally:
        for observer in reversed(observers[:entered]):
            if observer.watching:
                observer.exit(call)


# The five methods as they are, and under them as they report


_module_call, _apply = Module.__call__, Function.apply.__func__  # type: ignore[attr-defined]
_node_backward, _variable_backward, _optimizer_step = Node.backward, Variable.backward, Optimizer.step


def _report_module(self: Module, *args: Any, **options: Any) -> Any:
    state = _thread.state
    outside, state.module = state.module, self
    try:
        call = Call("module", type(self).__name__, self, self, args, options)
        return _reported(state, call, _module_call, self, args, options)
    finally:
        state.module = outside


def _report_apply(cls: type[Function], *inputs: Any, **options: Any) -> Any:
    state = _thread.state
    out = _reported(state, Call("forward", cls.name, cls, state.module, inputs, options), _apply, cls, inputs, options)
    if out.grad_fn is not None:
        out.grad_fn.ctx.module = state.module  # where the derivative will say it belongs
    return out


def _report_node(self: Node, grad_output: Any) -> Any:
    module = getattr(self.ctx, "module", None)
    call = Call("backward", f"{self.function.name}Backward", self.function, module, (grad_output,), None, self)
    call.saved = tuple(map(plain, getattr(self.ctx, "saved_tensors", ())))
    return _reported(_thread.state, call, _node_backward, self, (grad_output,), {})


def _report_pass(self: Variable, *args: Any, **options: Any) -> None:
    call = Call("pass", "backward", self, None, args, options)
    _reported(_thread.state, call, _variable_backward, self, args, options)


def _report_step(self: Optimizer) -> None:
    call = Call("optimizer", f"{type(self).__name__}.step", self, None)
    _reported(_thread.state, call, _optimizer_step, self, (), {})


_PLACES: tuple[tuple[type, str, Any, Any], ...] = (
    (Module, "__call__", _module_call, _report_module),
    (Function, "apply", classmethod(_apply), classmethod(_report_apply)),
    (Function, "watched", False, True),
    (Node, "backward", _node_backward, _report_node),
    (Variable, "backward", _variable_backward, _report_pass),
    (Optimizer, "step", _optimizer_step, _report_step),
)
_lock = threading.Lock()
_watchers = 0


def _install(change: int) -> None:
    """Count the observers of all threads; with the first the methods begin to report, with the last they end."""
    global _watchers
    with _lock:
        _watchers += change
        for place, name, plain, reporting in _PLACES:
            setattr(place, name, reporting if _watchers else plain)
