"""Peaks of traced memory, for parts of a program that lie within one another.

Python's `tracemalloc` counts what Python and NumPy allocate, in all threads, and keeps one peak for the process: asking
for that of a part means to reset it, which takes it from every part around. Here each look at the peak is handed on to
all windows that are open before it is reset.

What it sees: the data of NumPy arrays, to the byte, and Python's own objects, such as about 100 bytes for each array.
What it does not see: memory that libraries allocate for themselves, such as the workspaces of BLAS and the scratch
space of compiled kernels. It makes small operations several times slower: what is timed must not be traced.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import tracemalloc
from array import array
from collections.abc import Callable

import numpy as np

_OWN_AT_MOST = 1 << 20  # bytes that an instrument keeps in one report; more was allocated by another thread meanwhile


class Window:
    """A part of the program, from `Tracing.open` to `close`. Bytes, as long as it is open those up to the last look."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers = array("q", (0, 0, 0))  # start, peak, end: changed in place, since new integers would be traced

    @property
    def start(self) -> int:
        """What was traced at the start."""
        return self._numbers[0]

    @property
    def peak(self) -> int:
        """The most that was traced, above what was at the start."""
        return self._numbers[1] - self._numbers[0]

    @property
    def kept(self) -> int:
        """What was traced at the end above what was at the start; negative if more was freed than allocated."""
        return self._numbers[2] - self._numbers[0]


class Tracing:
    """The one `tracemalloc` of the process, shared by all who watch it.

    `pause` and `resume` stand around what an instrument does for itself: what it allocates there and keeps is left out
    of every window. They nest.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._windows: list[Window] = []
        self._users, self._pauses, self._collects = 0, 0, False
        self._around: Window | None = None  # of someone else, who traced before us
        self._numbers = array("q", (0, 0))  # bytes of the instruments' own; bytes traced at the last pause

    def start(self) -> None:
        """Begin to trace, or join those who do. A RuntimeError if NumPy's memory is not seen to the byte."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            self._numbers[0] = 0
            if tracemalloc.is_tracing():
                self._around = Window()
                self._windows.append(self._around)
            else:
                tracemalloc.start()
            try:
                self.check()
            except RuntimeError:
                self.stop()
                raise

    def stop(self) -> None:
        """Leave. The last one ends the tracing, unless someone else traced before; that one gets back the peak."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            around, self._around = self._around, None
            if around is None:
                tracemalloc.stop()
                return
            self._look()
            self._windows.remove(around)
            missing = around.peak - tracemalloc.get_traced_memory()[0] - np.ndarray.__basicsize__
            with contextlib.suppress(MemoryError):  # the only way to raise a peak; nothing touches these pages
                np.empty(max(0, missing), np.uint8)

    def pause(self) -> None:
        """Take in the peak so far; from here to `resume` the instrument is at work."""
        self._lock.acquire()
        self._pauses += 1
        if self._pauses == 1:
            self._collects = gc.isenabled()
            gc.disable()  # a collection would free memory of the program on the instrument's account
            self._look()

    def resume(self) -> None:
        """End what `pause` began."""
        if self._pauses == 1:
            grown = tracemalloc.get_traced_memory()[0] - self._numbers[1]
            if abs(grown) < _OWN_AT_MOST:
                self._numbers[0] += grown
            grown = 0
            if self._collects:
                gc.enable()
            tracemalloc.reset_peak()
        self._pauses -= 1
        self._lock.release()

    def open(self) -> Window:
        """Open a window, between `pause` and `resume`: it begins with what was traced at the pause."""
        window = Window()
        window._numbers[0] = window._numbers[1] = self._numbers[1] - self._numbers[0]
        self._windows.append(window)
        return window

    def close(self, window: Window) -> None:
        """Close a window, between `pause` and `resume`: it ends with the pause."""
        window._numbers[2] = self._numbers[1] - self._numbers[0]
        self._windows.remove(window)

    def now(self) -> int:
        """Return the bytes that were traced at the pause."""
        return self._numbers[1] - self._numbers[0]

    def _look(self) -> None:
        self._numbers[1], peak = tracemalloc.get_traced_memory()
        peak -= self._numbers[0]
        for window in self._windows:
            if peak > window._numbers[1]:
                window._numbers[1] = peak

    def check(self, allocate: Callable[[int], object] = lambda nbytes: np.empty(nbytes, np.uint8)) -> None:
        """Measure two allocations of known size.

        Raises
        ------
        RuntimeError
            If the larger one does not raise the peak by exactly the bytes that it has more.
        """
        sizes = 1 << 16, (1 << 20) + 1
        for _ in range(3):  # another thread may allocate meanwhile
            small, large = (self._peak_of(allocate, size) for size in sizes)
            if large - small == sizes[1] - sizes[0] and small >= sizes[0]:
                return
        raise RuntimeError(
            f"tracemalloc saw {small} bytes of an array of {sizes[0]} and {large} of one of {sizes[1]}: this NumPy "
            "allocates where it cannot be seen, or another thread allocates without pause. Peaks would be wrong"
        )

    def _peak_of(self, allocate: Callable[[int], object], size: int) -> int:
        self.pause()
        window = self.open()
        self.resume()
        allocate(size)
        self.pause()
        self.close(window)
        self.resume()
        return window.peak


tracing = Tracing()
