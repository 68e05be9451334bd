"""The recording itself: a log of beginnings and ends, written in a microsecond and read afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tinytorch.nn.module import Module
from tinytorch.profiling.dispatch import Call, Observer
from tinytorch.profiling.event import Event
from tinytorch.profiling.operation import Operation, sketch

Clock = Callable[[], int]


class Log(NamedTuple):
    """What a recorder wrote: (kind, name, module, time) for a beginning, (time, sketch, failed) for an end."""

    entries: list[tuple[Any, ...]]
    started: int  # nanoseconds of the clock, as all times here
    stopped: int
    dropped: int  # calls that found no room


class Recorder(Observer):
    """Keeps of each call its beginning and its end, in the order in which they come; they nest strictly.

    After `max_events` beginnings the calls that follow are counted and not kept. Since what is kept began before all
    that is dropped, every event still lies within the event around it.

    Parameters
    ----------
    model
        As in `Observer`.
    max_events
        How many events the log may hold.
    clock
        Nanoseconds since some moment.
    """

    def __init__(self, model: Module | None, max_events: int, clock: Clock = time.perf_counter_ns) -> None:
        super().__init__(model)
        if max_events < 1:
            raise ValueError(f"max_events is a number of events, 1 or more, got {max_events}")
        self.max_events, self._clock = max_events, clock
        self._begin()

    def _begin(self) -> None:
        self._log: list[tuple[Any, ...]] = []
        self._append, self._room = self._log.append, self.max_events
        self._dropped = self._within_dropped = 0
        self._started = self._clock()

    def _end(self) -> Log:
        log = Log(self._log, self._started, self._clock(), self._dropped)
        self._begin()
        return log

    # The clock is read last before a call and first after it: what recording takes falls to the call around it.

    def enter(self, call: Call) -> None:
        if self._room:
            self._room -= 1
            self._append((call.kind, call.name, call.module, self._clock()))
        else:
            self._dropped += 1
            self._within_dropped += 1

    def exit(self, call: Call) -> None:
        end = self._clock()
        if self._within_dropped:
            self._within_dropped -= 1
        else:
            self._append((end, None if call.kind == "module" else sketch(call), call.failed))

    def _read(self, log: Log) -> tuple[Event, ...]:
        """Make events of a log; what had not ended when it was stopped ends there."""
        events: list[list[Any]] = []
        around: list[int] = []
        for entry in log.entries:
            if len(entry) == 4:
                kind, name, module, begin = entry
                parent = around[-1] if around else -1
                around.append(len(events))
                events.append([kind, name, self.path(module), begin - log.started, log.stopped - begin, parent])
            elif around:  # else it began before the log did
                end, given, failed = entry
                event = events[around.pop()]
                event[4] = end - log.started - event[3]
                event += (Operation.from_sketch(given), failed)
        return tuple(Event(*event) for event in events)
