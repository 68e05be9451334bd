"""Processes that are late are killed, with all that they started."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

_LOOK = 0.05  # seconds between two looks at whether a process is late
_PATIENCE = 2.0  # seconds in which a process that closed its pipe has to end


class Watch:
    """Kills a process that is late. It looks now and then: to be woken for each request would cost a run's time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._until, self._late = process, math.inf, False
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="sandbox-watch", daemon=True)
        self._thread.start()

    def allow(self, seconds: float) -> None:
        """Let the process work for so long from now."""
        self._until = time.monotonic() + seconds

    def is_late(self) -> bool:
        """Return whether the process was killed, and kill it no more until it is allowed to work again."""
        with self._lock:
            self._until = math.inf
            return self._late

    def end(self) -> None:
        """Kill nothing from here on."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            with self._lock:
                if time.monotonic() > self._until:
                    self._late = True
                    kill(self._process)
                    return


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group. It must not have been waited for: its number could be another's by now."""
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that has ended
        os.killpg(process.pid, signal.SIGKILL)


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process that closed its pipe ends soon. Its status stays to be asked for."""
    stop = time.monotonic() + _PATIENCE
    while time.monotonic() < stop:
        if sys.platform == "win32":
            ended = process.poll() is not None
        else:
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        if ended:
            return True
        time.sleep(0.002)
    return False
