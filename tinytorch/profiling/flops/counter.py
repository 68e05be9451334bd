"""Counting the work of a model while it runs: FLOPs and bytes of each operation, its derivative and each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tinytorch.nn.module import Module
from tinytorch.profiling.dispatch import Call, Observer
from tinytorch.profiling.flops.count import Count, count, counted
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.table import Column, Table, size
from tinytorch.profiling.table import count as write_count

OUTSIDE = "outside of modules"


class UncountedOperationError(LookupError):
    """A strict `FLOPCounter` met an operation that nobody has registered a formula for."""


class FLOPCounter(Observer):
    """Counts what is computed in its block, in this thread: forward, the real backward, and optimizer steps.

    Each operation is looked at when it runs, so that a branch not taken costs nothing, and neither does a gradient
    that nobody asks for. What was counted can be read at any time, also inside of the block. Entering it again adds to
    it; `reset` forgets. A call that fails is not counted.

    What is no operation is not seen: the sum of the gradients of a tensor that is used twice, the clipping of
    gradients, what NumPy computes on its own, an optimizer that overrides `step`, and an `apply` that was taken from
    its `Function` before the block began. An `acceleration.Plan` is no module, and not seen either: it is counted by
    the model that it was made of.

    Whole numbers count as floating ones do, and layers without zeros by the weights that they store.

    Parameters
    ----------
    model
        Gives the modules their paths: see `dispatch.Observer`.
    strict
        Refuse an operation without a formula before it runs. Otherwise it runs and stands in `uncounted`.

    Raises
    ------
    UncountedOperationError
        In the block, by the operation, if `strict`.
    RuntimeError
        On entering it while it is at work, or leaving it in another thread.

    Examples
    --------
    >>> import numpy as np
    >>> from tinytorch import Tensor, nn
    >>> layer = nn.Linear(3, 2, rng=np.random.default_rng(0))
    >>> with FLOPCounter(layer) as counter:
    ...     layer(Tensor(np.ones((5, 3), np.float32))).sum().backward()
    >>> counter.forward  # 5 x 3 x 2 MACs, 10 additions of a bias, 10 of the sum
    Count(macs=30, flops=80, bytes=176, masked=0)
    >>> counter.backward  # the weight's gradient and the bias's: the input needs none
    Count(macs=30, flops=70, bytes=132, masked=0)
    """

    def __init__(self, model: Module | None = None, strict: bool = False) -> None:
        super().__init__(model)
        self.model, self.strict = model, strict
        self._own = {path for _, path in self._paths.values()}
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._work: Counter[tuple[str | None, str, Operation]] = Counter()  # by path, name, and shapes
        self._calls: dict[str, int] = {}  # of the modules, parents first

    def enter(self, call: Call) -> None:
        """Note the module; if strict, refuse what has no formula."""
        if call.kind == "module":
            self._calls.setdefault(self.path(call.module), 0)
        elif self.strict and call.kind in ("forward", "backward", "optimizer"):
            function = type(call.target) if call.kind == "optimizer" else call.target
            if not counted(call.kind, function):
                where = self._place(call.module) or f"the {type(self.model).__name__} itself"
                raise UncountedOperationError(
                    f"{call.name} ({where}) has no formula for its FLOPs. Register one, a function from an Operation "
                    f'to a Count, under @tinytorch.profiling.flops.count.counts({function.__name__}, "{call.kind}")'
                )

    def exit(self, call: Call) -> None:
        """Count the call."""
        path = None if call.module is None else self.path(call.module)
        if call.kind == "module" and path is not None and not call.failed:
            self._calls[path] = self._calls.get(path, 0) + 1  # it may have been reset within the module
        operation = Operation.of(call)
        if operation is not None:
            self._work[path, call.name, operation] += 1

    def _place(self, module: Module | None) -> str:
        return OUTSIDE if module is None else self.path(module)

    # What was counted

    @property
    def total(self) -> Count:
        """All of it."""
        return _sum(self._entries())

    @property
    def forward(self) -> Count:
        """The operations."""
        return _sum(e for e in self._entries() if e.kind == "forward")

    @property
    def backward(self) -> Count:
        """Their derivatives."""
        return _sum(e for e in self._entries() if e.kind == "backward")

    @property
    def optimizer(self) -> Count:
        """The steps of optimizers."""
        return _sum(e for e in self._entries() if e.kind == "optimizer")

    @property
    def uncounted(self) -> dict[str, int]:
        """The operations without a formula, with the number of their calls: by so much the sums are too small."""
        missing: Counter[str] = Counter()
        for entry in self._entries():
            if entry.work is None:
                missing[entry.name] += entry.calls
        return dict(missing)

    @property
    def coverage(self) -> float:
        """The share of operations that were counted, derivatives and steps among them; 1 if there were none."""
        counted, calls = _covered(self._entries())
        return counted / calls if calls else 1.0

    def by_operation(self) -> dict[str, Count]:
        """Return the work by name: "Linear", "LinearBackward", "AdamW.step"."""
        groups: dict[str, list[_Entry]] = {}
        for entry in self._entries():
            groups.setdefault(entry.name, []).append(entry)
        return {name: _sum(entries) for name, entries in groups.items()}

    def by_module(self) -> dict[str, Count]:
        """Return the work by path, that of the modules below included; `OUTSIDE` is what no module did.

        The model itself has the path "". An operation belongs to the innermost module that called it, and so does its
        derivative.
        """
        return {path: _sum(entries) for path, entries in self._by_path().items()}

    def _entries(self) -> list[_Entry]:
        entries = []
        for (path, name, operation), calls in self._work.items():
            one = count(operation)
            entries.append(_Entry(path, name, operation.kind, calls, None if one is None else one * calls))
        return entries

    def _by_path(self) -> dict[str, list[_Entry]]:
        """Group the entries by every module around them, in the order of the model, then of the first call."""
        groups: dict[str, list[_Entry]] = {path: [] for path in self._calls}
        for entry in self._entries():
            for path in self._around(entry.path):
                groups.setdefault(path, []).append(entry)
        paths = [] if self.model is None else [path for path, _ in self.model.named_modules()]
        order = {path: i for i, path in enumerate(paths)}
        return {path: groups[path] for path in sorted(groups, key=lambda path: order.get(path, len(order)))}

    def _around(self, path: str | None) -> Iterator[str]:
        """Yield the paths of a module and of those around it."""
        if path is None:
            yield OUTSIDE
            return
        if path in self._own:
            yield ""
        known = {known for _, known in self._paths.values()}
        parts = path.split(".")
        yield from (above for i in range(len(parts)) if (above := ".".join(parts[: i + 1])) in known and above)

    # How it is shown

    def table(self, depth: int | None = None) -> Table:
        """Show a row for each module down to `depth` (the model itself is at 0), what modules did not do, and all.

        Forward and backward are FLOPs; what is left of a row's FLOPs are steps of optimizers. The last column has the
        operations that were counted, of those that ran.
        """
        rows, classes = [], {path: type(module).__name__ for module, path in self._paths.values()}
        for path, entries in self._by_path().items():
            if depth is None or path == OUTSIDE or sum(1 for _ in self._around(path)) <= depth + 1:
                rows.append(_row(path or "the model", classes.get(path, ""), self._calls.get(path), entries))
        rows.append(_row("all", "", None, self._entries()))
        columns = [
            Column("module", words=True),
            Column("class", words=True),
            Column("calls", lambda calls: "" if calls is None else str(calls)),
            *(Column(title, write_count) for title in ("MACs", "FLOPs", "forward", "backward")),
            Column("bytes", size),
            Column("counted", lambda covered: "{} of {}".format(*covered)),
        ]
        return Table("Work by module", columns, rows, self._notes())

    def _notes(self) -> list[str]:
        notes = ["1 MAC is 2 FLOPs."]
        if not self._work:
            notes = ["No operation was seen: nothing ran, or what ran is none, such as a Plan."]
        if masked := self.total.masked:
            notes.append(f"{write_count(masked)} FLOPs are spent on positions that a causal mask hides.")
        if missing := self.uncounted:
            calls = ", ".join(f"{name} ({n} call{'s' * (n > 1)})" for name, n in missing.items())
            notes.append(f"Not counted, for want of a formula, so that the sums are too small: {calls}.")
        return notes

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class _Entry(NamedTuple):
    """Equal calls: where, what, how many, and the cost of them all, None if it is not known."""

    path: str | None
    name: str
    kind: str
    calls: int
    work: Count | None


def _sum(entries: Iterable[_Entry]) -> Count:
    return sum((entry.work for entry in entries if entry.work is not None), Count())


def _covered(entries: Iterable[_Entry]) -> tuple[int, int]:
    """Return how many calls were counted, and how many there were."""
    calls = [(entry.calls, entry.work is not None) for entry in entries]
    return sum(n for n, counted in calls if counted), sum(n for n, _ in calls)


def _row(name: str, layer: str, calls: int | None, entries: list[_Entry]) -> tuple[Any, ...]:
    forward, backward = (_sum(e for e in entries if e.kind == kind).flops for kind in ("forward", "backward"))
    total = _sum(entries)
    return name, layer, calls, total.macs, total.flops, forward, backward, total.bytes, _covered(entries)
