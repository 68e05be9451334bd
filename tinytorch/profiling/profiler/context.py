"""`ProfilerContext`: what ran, when, within what, and for how long."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from os import PathLike

from tinytorch.nn.module import Module
from tinytorch.profiling.event import Event
from tinytorch.profiling.files import write_text
from tinytorch.profiling.profiler.averages import Averages, GroupBy, key_averages
from tinytorch.profiling.profiler.flame import Flame
from tinytorch.profiling.profiler.recorder import Clock, Log, Recorder
from tinytorch.profiling.profiler.schedule import ProfilerAction, Schedule, always
from tinytorch.profiling.profiler.trace import chrome_trace
from tinytorch.profiling.table import Table


class ProfilerContext(Recorder):
    """Record every module, operation, derivative, backward pass, optimizer step and `record_function`, nested.

    It records the thread that entered it: others run unobserved. An exception out of its block is passed on, and what
    was recorded up to there can be read. A finished profiler may be entered again: that begins a new profile and
    forgets the old one.

    Parameters
    ----------
    model
        Gives the modules their paths: see `dispatch.Observer`.
    schedule
        Which steps are recorded: `schedule(wait, warmup, active, repeat)`; all of them if None. `step` ends a step.
    max_events
        How many events a window of the schedule may hold. Those that begin later are counted in `dropped`, not kept.
    on_trace_ready
        Called with the profiler after each window, and after the block if that ends within the first, though not if it
        ends in an exception. Nothing is observed meanwhile.
    clock
        Nanoseconds since some moment.

    Raises
    ------
    ValueError
        If `max_events` is below 1.
    TypeError
        On entering it or calling `step`, if the schedule returns no `ProfilerAction`.
    RuntimeError
        On entering it while it is at work; on leaving it or calling `step` outside of its block or in another thread;
        on reading it while it records.

    Examples
    --------
    >>> from tinytorch import Tensor, nn
    >>> with ProfilerContext() as prof:
    ...     y = nn.ReLU()(Tensor([1.0, -1.0]))
    >>> [(event.kind, event.name, event.parent) for event in prof.events]
    [('module', 'ReLU', -1), ('forward', 'ReLU', 0)]
    """

    step_num = 0  # of the current block; PyTorch's name
    dropped = 0  # calls of the last complete window that found the buffer full
    thread_name = ""  # of the thread that is recorded

    def __init__(
        self,
        model: Module | None = None,
        schedule: Schedule | None = None,
        max_events: int = 100_000,
        on_trace_ready: Callable[[ProfilerContext], object] | None = None,
        *,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        super().__init__(model, max_events, clock)
        self.schedule, self.on_trace_ready = always if schedule is None else schedule, on_trace_ready
        self._thread: int | None = None  # at work in this one
        self._action = ProfilerAction.NONE
        self._window: Log | None = None  # a complete one that nobody has read yet
        self._events: tuple[Event, ...] = ()
        self._saved, self._seen = False, 0  # whether a window was complete; entries of the log when the step began

    # From step to step

    def __enter__(self) -> ProfilerContext:
        if self._thread is not None:
            raise RuntimeError("this ProfilerContext is at work already: leave it first, or make another")
        first = self._planned(0)
        self.step_num, self.dropped, self._window, self._events, self._saved = 0, 0, None, (), False
        self._thread, self.thread_name = threading.get_ident(), threading.current_thread().name
        self._turn_to(first)
        return self

    def __exit__(self, kind: object = None, *exc: object) -> None:
        self._check_thread("left")
        self._thread = None
        self._turn_to(ProfilerAction.NONE, tell=kind is None, left=True)

    def step(self) -> None:
        """End a step of the program: the schedule says what is done in the next."""
        self._check_thread("stepped")
        self.step_num += 1
        self._turn_to(self._planned(self.step_num))

    def _planned(self, step: int) -> ProfilerAction:
        action = self.schedule(step)
        if not isinstance(action, ProfilerAction):
            raise TypeError(f"a schedule returns a ProfilerAction for each step, got {action!r} for step {step}")
        return action

    def _check_thread(self, what: str) -> None:
        if self._thread != threading.get_ident():
            where = "outside of its block" if self._thread is None else "in another thread than it was entered in"
            raise RuntimeError(f"this ProfilerContext was {what} {where}")

    def _turn_to(self, action: ProfilerAction, tell: bool = True, left: bool = False) -> None:
        before, self._action = self._action, ProfilerAction.NONE
        ends = before is ProfilerAction.RECORD_AND_SAVE or (before.records and not action.records)
        # left before its last step ran, or in the middle: a part of a window, not shown where there is a whole one
        whole = before is ProfilerAction.RECORD_AND_SAVE and not (left and len(self._log) == self._seen)
        cut = ends and not whole and self._saved
        if ends:
            window = self._end()
            if not cut:
                self._window, self.dropped = window, window.dropped
            self._saved = self._saved or whole
        if self.watching and (ends or action is ProfilerAction.NONE):
            super().__exit__()
        if ends and not cut and tell and self.on_trace_ready is not None:
            self.on_trace_ready(self)
        if action is not ProfilerAction.NONE:
            if not self.watching:
                super().__enter__()
            if ends or before is ProfilerAction.NONE or action.records != before.records:
                self._begin()
        self._action, self._seen = action, len(self._log)

    # What was recorded

    @property
    def events(self) -> tuple[Event, ...]:
        """The events of the last complete window, numbered in the order of their start.

        If none was complete, those up to the end of the block.
        """
        if self._action.records:
            raise RuntimeError("this ProfilerContext is recording: read it after its block, or in on_trace_ready")
        if self._window is not None:
            self._events, self._window = self._read(self._window), None
        return self._events

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers: that there are none, that some are missing, that calls failed."""
        notes = [] if self.events else [self._why_empty()]
        if self.dropped:
            notes.append(
                f"{self.dropped} later calls were dropped: the buffer of max_events={self.max_events} was full"
            )
        failed = [f"{e.name} in {e.path}" if e.path else e.name for e in self.events if e.failed]
        if failed:
            notes.append(f"ended in an exception: {', '.join(dict.fromkeys(failed))}")
        return tuple(notes)

    def _why_empty(self) -> str:
        if not self.thread_name:
            return "Nothing was recorded: this profiler was not entered yet."
        if self.schedule is not always:
            return f"Nothing was recorded: after {self.step_num} calls of step(), the schedule has completed no window."
        return f"Nothing was recorded: no module, operation, step or range ran in thread {self.thread_name}."

    def key_averages(self, group_by: GroupBy = "name") -> Averages:
        """Add up the events by "name", by "module" or by "shapes": see `averages.key_averages`."""
        return key_averages(self.events, group_by, self.notes)

    def table(self, sort_by: str = "self_cpu_time_total", row_limit: int = 100) -> Table:
        """Return the table of `key_averages()`."""
        return self.key_averages().table(sort_by, row_limit)

    def print_rich(self) -> None:
        """Write the table to the terminal."""
        self.table().print_rich()

    def flame(self) -> Flame:
        """Return a picture of the events, inner ones under outer ones, as wide as they took."""
        return Flame(self.events, " ".join(self.notes))

    def export_chrome_trace(self, path: str | PathLike[str]) -> None:
        """Write a file for ui.perfetto.dev or `chrome://tracing`.

        A FileNotFoundError if its folder does not exist, an IsADirectoryError if the path is one.
        """
        about = {"notes": self.notes, "dropped": self.dropped}
        write_text(json.dumps(chrome_trace(self.events, self.thread_name, about)), path)

    def _repr_html_(self) -> str:
        if self._action.records:
            return "<p>This profiler is recording.</p>"
        return self.table()._repr_html_() + self.flame()._repr_html_()
