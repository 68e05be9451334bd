"""Memory of a block of code: what Python traced, what the framework's tensors are for, what the process ever held."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tinytorch.autograd import Context
from tinytorch.nn.module import Module
from tinytorch.optim import Optimizer
from tinytorch.profiling.dispatch import Call, Kind, Observer
from tinytorch.profiling.memory.census import Census
from tinytorch.profiling.memory.process import HighWater, high_water
from tinytorch.profiling.memory.tensors import Block, arrays_in
from tinytorch.profiling.memory.traced import Window, tracing
from tinytorch.profiling.table import Column, Table, size
from tinytorch.tensor import Tensor


@dataclass(frozen=True)
class Moment:
    """The end of a call, while all that it used is still there.

    Attributes
    ----------
    index, kind, name, path
        Its number, and the call as in `dispatch.Call`; the path of the module it was made in.
    tensors
        Bytes of the tensors alive, by category.
    traced
        Bytes traced above what was traced at the beginning of the block.
    """

    index: int
    kind: Kind
    name: str
    path: str
    tensors: dict[str, int]
    traced: int


class _Layer:
    """A module or an operation within it, in all its calls: each one's traced peak, and the blocks it left."""

    def __init__(self, module: Module | None, path: str, name: str, is_module: bool) -> None:
        self.module, self.path, self.name, self.is_module = module, path, name, is_module
        self.peaks: list[int] = []
        self.backward_peaks: list[int] = []
        self.kept: list[list[Block]] = []


class _Frame:
    """A call that has begun."""

    __slots__ = ("blocks", "call", "ctx", "window")

    def __init__(self, call: Call, window: Window) -> None:
        self.call, self.window = call, window
        self.ctx = call.node.ctx if call.node else None  # kept until the end: what it saved was there all the time
        self.blocks: list[Block] = []


class MemoryProfiler(Observer):
    """Three numbers for the memory of a block, which are not the same thing.

    * **traced**: the peak of all that Python and NumPy allocated above what there was at the beginning, in any thread.
      An array of n bytes raises it by n, to the byte; Python's objects come on top, about 100 bytes for an array. The
      workspaces of BLAS and of compiled kernels are not seen (`memory/traced.py`).
    * **tensors**: the bytes of the framework's arrays that are alive, by category, and their peak. These depend on the
      shapes alone and are the same on every machine with the same backend. Arrays within an operation are not seen; the
      sum of two gradients is, when it is used.
      Those of other threads than the one in which the block began are not counted.
    * **process**: the most physical memory that the process held since it began, before and after.

    Contexts nest: each keeps its own peak. What the profiler itself keeps is left out. Entering it again begins anew.
    Small operations get many times slower: do not time what you profile here. Compiling is traced too: call a model
    once before, if its kernels are not compiled yet. About a kilobyte is kept for each operation: a few steps are
    enough.

    Parameters
    ----------
    model
        Names the parameters, and counts them from the beginning; other modules are met when they are called.
    optimizer
        Counts its state from the beginning; otherwise from its first step on.
    caches
        Objects whose attributes are arrays of keys and values; those of the framework are known when a module is given
        one.

    Raises
    ------
    RuntimeError
        On entering it while it is at work, and if NumPy's memory cannot be traced; on leaving it in another thread, and
        if tracing was stopped within the block.
    TypeError
        If one of `caches` has no arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from tinytorch import nn
    >>> model = nn.Sequential(nn.Linear(100, 50), nn.ReLU())
    >>> with MemoryProfiler(model) as memory:
    ...     y = model(Tensor(np.zeros((8, 100), np.float32)))
    >>> memory.peak["parameters"], memory.peak["inputs"], memory.peak["activations"]
    (20200, 3200, 3200)
    """

    def __init__(
        self, model: Module | None = None, optimizer: Optimizer | None = None, caches: Iterable[Any] = ()
    ) -> None:
        super().__init__(model)
        self.model, self.optimizer, self.caches = model, optimizer, tuple(caches)
        for cache in self.caches:
            if not any(arrays_in(value) for value in getattr(cache, "__dict__", {}).values()):
                raise TypeError(f"a cache has arrays as attributes, or in lists there: {type(cache).__name__} has none")
        self.process: tuple[HighWater, HighWater] | None = None
        self._begin()

    def _begin(self) -> None:
        self.timeline: list[Moment] = []
        self._census, self._window = Census(self.path), Window()
        self._tensors = self._census.tensors
        self._frames: list[_Frame] = []
        self._layers: dict[tuple[int, str, bool], _Layer] = {}
        self._at_start = dict(self._tensors.bytes)

    def __enter__(self) -> MemoryProfiler:
        tracing.start()
        tracing.pause()
        try:
            super().__enter__()
            self._begin()
            if self.model is not None:
                self._census.meet(self.model)
            if self.optimizer is not None:
                self._census.meet_optimizer(self.optimizer)
            for i, cache in enumerate(self.caches):
                self._census.meet_cache(cache, f"cache {i}")
            self._at_start = dict(self._tensors.bytes)
            self.process = (high_water(),) * 2
            self._window = tracing.open()
        except BaseException:
            tracing.stop()
            raise
        finally:
            tracing.resume()
        return self

    def __exit__(self, *exc: object) -> None:
        tracing.pause()
        try:
            super().__exit__()
            for window in (*(frame.window for frame in self._frames), self._window):
                tracing.close(window)
            self._frames.clear()
            self._tensors.end()
            if self.process is not None:
                self.process = self.process[0], high_water()
        finally:
            tracing.resume()
        lost = not tracemalloc.is_tracing()
        tracing.stop()
        if lost and not any(exc):
            raise RuntimeError("tracemalloc was stopped within the block, and what it had traced is lost")

    def enter(self, call: Call) -> None:
        """Open a window for the call, and count what it is given."""
        tracing.pause()
        try:
            self._census.before(call)
            if call.kind == "module":
                self._layer(call)  # before those within it
            self._frames.append(_Frame(call, tracing.open()))
        finally:
            tracing.resume()

    def exit(self, call: Call) -> None:
        """Close its window, and count what it has made."""
        if not self._frames or self._frames[-1].call is not call:
            return  # begun before the profiler was
        tracing.pause()
        try:
            ctx = self._end(call)
        finally:
            tracing.resume()
        del ctx  # what a derivative had saved goes only now: it is the program's memory, not the profiler's

    def _end(self, call: Call) -> Context | None:
        frame = self._frames.pop()
        tracing.close(frame.window)
        if not call.failed:
            frame.blocks += self._census.after(call)
            if self._frames:
                self._frames[-1].blocks += frame.blocks
            if call.kind in ("module", "forward"):
                layer = self._layer(call)
                layer.peaks.append(frame.window.peak)
                layer.kept.append(frame.blocks)
            elif call.kind == "backward":
                self._layer(call).backward_peaks.append(frame.window.peak)
        if call.kind not in ("module", "range"):
            traced, tensors = tracing.now() - self._window.start, dict(self._tensors.bytes)
            self.timeline.append(
                Moment(len(self.timeline), call.kind, call.name, self.path(call.module), tensors, traced)
            )
        return frame.ctx

    def _layer(self, call: Call) -> _Layer:
        is_module = call.kind == "module"
        name = call.target.name if call.kind == "backward" else call.name
        key = id(call.module), name, is_module
        if key not in self._layers:
            self._layers[key] = _Layer(call.module, self.path(call.module), name, is_module)
        return self._layers[key]

    # What is shown

    @property
    def traced_peak(self) -> int:
        """Bytes: the most that was traced in the block, above what was traced at its beginning."""
        return self._window.peak

    @property
    def traced_kept(self) -> int:
        """Bytes that the block left behind, less those that it freed of what was traced before."""
        return self._window.kept

    @property
    def peak(self) -> dict[str, int]:
        """Bytes of the tensors alive when they were the most: by category, and "total"."""
        peak = self._tensors.peak
        return {**peak, "total": sum(peak.values())}

    def at_peak(self) -> Table:
        """Name each array that was alive at the peak of the tensors, the largest first."""
        columns = [Column("category", words=True), Column("tensor", words=True), Column("shape"), Column("size", size)]
        rows = [(block.category, block.name, block.shape, block.nbytes) for block in self._tensors.at_peak()]
        return Table(f"Alive at the peak: {size(self.peak['total'])}", columns, rows)

    def layers(self, operations: bool = False) -> Table:
        """Show each module, with `operations` also what it calls, in the order of the first calls.

        Of several calls the largest number counts. `forward` and `backward` are traced peaks above the beginning of the
        call; `kept` is what it left for the backward pass, and `saved` the part of it that derivatives asked for
        (`save_for_backward`): the rest is alive only because the graph holds the tensors that it is made of.
        Operations outside of modules come last.
        """
        names = "module", "call", "calls", "forward", "backward", "kept", "saved"
        columns = [Column(n, words=True) for n in names[:2]] + [Column("calls")] + [Column(n, size) for n in names[3:]]
        layers = sorted(self._layers.values(), key=lambda layer: layer.module is None)
        rows = []
        for layer in layers:
            if operations or layer.is_module or layer.module is None:
                below = set(map(id, layer.module.modules())) if layer.is_module and layer.module else set()
                parts = [o for o in layers if id(o.module) in below] if below else [layer]
                backward = max((peak for part in parts for peak in part.backward_peaks), default=0)
                kept = max((sum(b.nbytes for b in blocks) for blocks in layer.kept), default=0)
                saved = max((sum(b.nbytes for b in blocks if b.saved) for blocks in layer.kept), default=0)
                forward = max(layer.peaks, default=0)
                name = layer.name if layer.is_module or layer.module is None else f"  {layer.name}"
                rows.append((layer.path, name, len(layer.peaks), forward, backward, kept, saved))
        return Table("Memory by layer", columns, rows)

    def table(self) -> Table:
        """Show the three numbers."""
        process = self.process or (HighWater(None, "not measured"),) * 2
        before, after = (reading.nbytes for reading in process)
        end, peak = self._tensors.bytes, self.peak
        rows: list[tuple[Any, ...]] = [
            ("traced, above the start", 0, self.traced_peak, self.traced_kept),
            ("tensors", sum(self._at_start.values()), peak["total"], sum(end.values())),
        ]
        rows += [(f"  {c}", self._at_start[c], peak[c], end[c]) for c in end if peak[c] or end[c]]
        rows.append(("process, highest so far", before, after, after))
        columns = [Column("", words=True), *(Column(n, _size_or_dash) for n in ("start", "peak", "end"))]
        notes = (
            "traced: Python and NumPy, not the workspaces of BLAS. tensors: arrays of the framework.",
            f"process: physical memory since its start ({process[1].source}).",
        )
        return Table("Memory", columns, rows, notes)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _size_or_dash(value: int | None) -> str:
    return "–" if value is None else size(value)


def training_memory(model: Module, loss: Callable[[], Tensor], optimizer: Optimizer | None = None) -> dict[str, int]:
    """Return the bytes by category, and "total", at the peak of one training step.

    The step is `loss()`, its `backward` and, with an optimizer, a step of that, which changes the model. Gradients of
    before are forgotten first; those of the step stay.
    """
    model.zero_grad()
    with MemoryProfiler(model, optimizer) as memory:
        loss().backward()
        if optimizer is not None:
            optimizer.step()
    return memory.peak
