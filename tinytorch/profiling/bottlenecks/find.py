"""`find_bottlenecks`: what each operation of a profile waits for, and what can be gained there at most.

An operation is placed on the roofline of this machine, under the roof of the nearest cache that holds its arrays. The
time above that bound is what a perfect kernel would save. Amdahl's law says what this is worth to the whole: if a part
p of the time is made s times as fast, the whole becomes 1 / (1 - p + p / s) times as fast.

Source: Amdahl, "Validity of the single processor approach to achieving large scale computing capabilities" (1967). The
verdicts and their sources stand in `tinytorch.profiling.bottlenecks.verdict`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import numpy as np

from tinytorch.acceleration.compiled import need_numba
from tinytorch.acceleration.roofline import MEMORY, Roofline, cache_sizes
from tinytorch.profiling.bottlenecks.advice import FORMULA, LARGER_BATCH, LARGER_CALLS, advise, repeats_positions
from tinytorch.profiling.bottlenecks.findings import Bottleneck, Bottlenecks
from tinytorch.profiling.bottlenecks.overhead import Prices
from tinytorch.profiling.bottlenecks.verdict import Verdict, Work, judge, judge_glue
from tinytorch.profiling.dispatch import Kind
from tinytorch.profiling.event import Event, Profile, self_times
from tinytorch.profiling.flops.count import count
from tinytorch.profiling.operation import Array, Operation

_BETWEEN: dict[str, str] = {"module": "between operations", "pass": "between derivatives"}
_UNCOUNTED = "nobody has registered a formula for its work: all of its time counts as what could be saved"
_OWN_CODE = "your own code in this range, outside of operations"


def find_bottlenecks(
    prof: Profile | Sequence[Event], roofline: Roofline | None = None, overhead: float | None = None
) -> Bottlenecks:
    """Say of every operation in a profile what it waits for, what could be gained there, and what to try.

    Parameters
    ----------
    prof
        A profile that has ended, or its events.
    roofline
        The roofs of one thread. None measures those of this machine, once in a process: two seconds.
    overhead
        Seconds that any call costs before it computes. None measures it for each operation, under the backend in use:
        call this under the backend that was profiled.

    Returns
    -------
    Bottlenecks
        One row for equal work: the same operation, derivative or optimizer on the same shapes. Operations without a
        formula have rows too, "not counted", and so has the time between operations.

    Raises
    ------
    ModuleNotFoundError
        If the roofline has to be measured and Numba is not installed.
    ValueError
        If `overhead` is negative or not a number.

    Examples
    --------
    >>> import numpy as np
    >>> from tinytorch import Tensor
    >>> from tinytorch.profiling.profiler.context import ProfilerContext
    >>> ones = Tensor(np.ones((512, 512), np.float32))
    >>> with ProfilerContext() as prof:
    ...     product = ones @ ones
    >>> (product,) = find_bottlenecks(prof, Roofline(peak_flops=1e7, bandwidth=1e10), overhead=1e-6)
    >>> product.name, product.intensity, product.flops
    ('MatMul', 85.33333333333333, 268435456)
    """
    if overhead is not None and not (math.isfinite(overhead) and overhead >= 0):
        raise ValueError(f"overhead is seconds of a call, not {overhead}")
    events = prof if isinstance(prof, Sequence) else prof.events
    own = self_times(events)
    equal: dict[tuple[Kind, str, Operation | str], list[int]] = {}
    for event, nanoseconds in zip(events, own, strict=True):
        equal.setdefault((event.kind, event.name, event.operation or event.path), []).append(nanoseconds)
    derivatives = sum(event.kind == "backward" for event in events)
    machine = _Machine(
        roofline=_measured_roofline() if roofline is None else roofline,
        prices=Prices(overhead),
        caches=_cache_sizes() if roofline is None or roofline.cache_bandwidth else {},
        total_seconds=sum(own) / 1e9,
        derivatives=derivatives,
        repeats=not derivatives and repeats_positions(work for *_, work in equal if isinstance(work, Operation)),
    )
    rows, between = [], dict[tuple[Kind, str], list[list[int]]]()
    for (kind, name, work), times in equal.items():
        if not any(times):
            continue  # the clock did not move
        if isinstance(work, Operation):
            rows.append(machine.place(name, work, times))
        else:
            between.setdefault((kind, _BETWEEN.get(kind, name)), []).append(times)
    rows += [machine.between(kind, name, parts) for (kind, name), parts in between.items()]
    return Bottlenecks(rows, machine.total_seconds, machine.roofline, getattr(prof, "notes", ()))


@functools.cache
def _measured_roofline() -> Roofline:
    need_numba("measuring the roofline, which find_bottlenecks does unless it is given one (`roofline=`),")
    return Roofline.measure(quick=True)


_cache_sizes = functools.cache(cache_sizes)


class _Machine(NamedTuple):
    """Where operations are placed, and what is known of the profile as a whole."""

    roofline: Roofline
    prices: Prices
    caches: Mapping[str, int]
    total_seconds: float
    derivatives: int
    repeats: bool

    def place(self, name: str, operation: Operation, times: Sequence[int]) -> Bottleneck:
        """Judge equal operations by their nanoseconds."""
        calls, usual, cost = len(times), _usual(times), count(operation)
        row = Bottleneck(
            name=name,
            kind=operation.kind,
            shapes=_shapes(operation),
            calls=calls,
            seconds=sum(times) / 1e9,
            usual=usual,
            total_seconds=self.total_seconds,
            verdict="not counted",
            reason=_UNCOUNTED,
            advice=(FORMULA,),
        )
        if cost is None:
            return row
        flops, size, level = calls * (cost.flops - cost.masked), calls * cost.bytes, self._level(cost.bytes)
        work = Work(
            seconds=usual,
            price=calls * self.prices.of(operation),
            memory=size / self.roofline.cache_bandwidth.get(level, self.roofline.bandwidth),
            compute=flops / self._peak(operation),
            level=level,
            products=cost.macs > 0,
        )
        verdict, reason = judge(work)
        advice = advise(work, verdict, operation.kind, self.repeats)
        return replace(
            row,
            verdict=verdict,
            reason=reason,
            advice=advice,
            flops=flops,
            bytes=size,
            level=level,
            bound=work.bound,
        )

    def between(self, kind: Kind, name: str, parts: Sequence[Sequence[int]]) -> Bottleneck:
        """Judge the time in which no operation ran, or one that failed; each module's, range's or pass's is a part."""
        calls, usual = sum(map(len, parts)), sum(map(_usual, parts))
        verdict: Verdict = "not counted"
        reason = _OWN_CODE if kind == "range" else "it failed, or had not ended"
        if kind in ("module", "pass"):
            verdict, reason = judge_glue(
                usual, self.derivatives or calls if kind == "pass" else calls, self.prices.least
            )
        advice = LARGER_CALLS if kind == "module" else LARGER_BATCH
        return Bottleneck(
            name=name,
            kind=kind,
            shapes="",
            calls=calls,
            seconds=sum(map(sum, parts)) / 1e9,
            usual=usual,
            total_seconds=self.total_seconds,
            verdict=verdict,
            reason=reason,
            advice=(advice,) if verdict == "overhead-bound" else (),
        )

    def _level(self, size: int) -> str:
        """Return the nearest level that has a roof and holds so many bytes."""
        known = (name for name in self.caches if name in self.roofline.cache_bandwidth and size <= self.caches[name])
        return next(known, MEMORY)

    def _peak(self, operation: Operation) -> float:
        """Return the operations per second: half as many of float64 as of float32 fit into an instruction."""
        arrays = (x for x in (operation.output, *operation.inputs) if isinstance(x, Array))
        wide = any(x.dtype == np.float64 for x in arrays)
        return self.roofline.peak_flops / (2 if wide else 1)


def _usual(times: Sequence[int]) -> float:
    """Return the seconds of all calls, had each taken as long as the median."""
    return (len(times) * median(times) or sum(times)) / 1e9


def _shapes(operation: Operation) -> str:
    """Write the shapes of the inputs; an optimizer has too many of them."""
    arrays = [x for x in operation.inputs if isinstance(x, Array)]
    if operation.kind == "optimizer":
        return f"{len(arrays)} parameters, {sum(x.size for x in arrays)} numbers"
    return ", ".join("x".join(map(str, x.shape)) or "()" for x in arrays)
