"""A profile as a file for Perfetto (ui.perfetto.dev), `chrome://tracing` or any reader of Chrome's trace events.

Source: "Trace Event Format" (Google, 2016), complete events ("X") and metadata ("M"); times there are microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tinytorch.profiling.event import Event
from tinytorch.profiling.operation import Array


def chrome_trace(
    events: Sequence[Event], thread_name: str = "MainThread", more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the trace as JSON has it: one complete event for each of `events`, in order, outer before inner.

    Parameters
    ----------
    events
        Numbered in the order of their start.
    thread_name
        What the viewer calls their track.
    more
        What the file should say of itself ("otherData").
    """
    names = (("process_name", "TinyTorch"), ("thread_name", thread_name))
    metadata = [{"ph": "M", "name": key, "pid": 1, "tid": 1, "ts": 0, "args": {"name": name}} for key, name in names]
    complete = [
        {
            "ph": "X",
            "name": event.name,
            "cat": event.kind,
            "pid": 1,
            "tid": 1,
            "ts": _microseconds(event.start),
            "dur": _microseconds(event.duration),
            "args": _arguments(event),
        }
        for event in events
    ]
    return {"traceEvents": metadata + complete, "displayTimeUnit": "ms", "otherData": dict(more or {})}


def _microseconds(nanoseconds: int) -> float:
    # Viewers multiply by 1000 and cut: 1.001 would become 1000 ns, and an event could stick out of the one around it.
    value = nanoseconds / 1000
    return value if int(value * 1000) == nanoseconds else math.nextafter(value, math.inf)


def _arguments(event: Event) -> dict[str, Any]:
    arguments: dict[str, Any] = {"path": event.path} if event.path else {}
    if event.operation is not None:
        arguments["inputs"] = [_words(x) for x in event.operation.inputs]
        arguments |= {name: _words(value) for name, value in event.operation.options}
        if event.operation.output is not None:
            arguments["output"] = _words(event.operation.output)
    if event.failed:
        arguments["failed"] = True
    return arguments


def _words(value: Any) -> str:
    if isinstance(value, Array):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return value.__name__ if isinstance(value, type) else str(value)
