"""What a profile is made of: one event for each call, with its time and the event around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tinytorch.profiling.dispatch import Kind
from tinytorch.profiling.operation import Operation


class Event(NamedTuple):
    """A call that has ended.

    Attributes
    ----------
    kind, name
        As in `dispatch.Call`.
    path
        The path of the module it ran in, for a module its own.
    start, duration
        Nanoseconds; `start` counts from the beginning of the profile.
    parent
        The number of the event around it, -1 for none. Events are numbered in the order of their start.
    operation
        What it was given, for "forward", "backward" and "optimizer"; None for others.
    failed
        Whether it ended in an exception.
    """

    kind: Kind
    name: str
    path: str
    start: int
    duration: int
    parent: int = -1
    operation: Operation | None = None
    failed: bool = False

    @property
    def end(self) -> int:
        """Nanoseconds from the beginning of the profile to the end of the call."""
        return self.start + self.duration


class Profile(Protocol):
    """What has events, such as a `ProfilerContext` that has ended."""

    @property
    def events(self) -> Sequence[Event]:
        """Numbered in the order of their start."""
        ...


def self_times(events: Sequence[Event]) -> list[int]:
    """Return the nanoseconds that each event spent outside of the events within it."""
    own = [event.duration for event in events]
    for event in events:
        if event.parent >= 0:
            own[event.parent] -= event.duration
    return own
