"""Warming up on two cores, and only once: a second process that compiles from the other end, and a lock for both.

Numba compiles one function at a time in a process. What another process has compiled is found on disk; so two that
begin at opposite ends of one list meet in the middle, each having compiled what the other one takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tinytorch.kernels.machine import usable_cores

_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would open one
_POLL, _PATIENCE = 0.2, 300.0  # seconds: between two looks at a lock, and until a process goes on without it


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with this file, but not for ever, nor where there are no locks.

    The system takes the lock from a process that ends, however it ends.
    """
    try:
        file = lock.open("ab")
    except OSError:  # a folder that cannot be written: what is compiled there helps nobody else
        yield
        return
    with file:
        end = time.monotonic() + _PATIENCE
        with suppress(OSError):
            while not _take(file) and time.monotonic() < end:
                time.sleep(_POLL)
        yield


def _take(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # another process has it
        return False
    return True


@contextmanager
def helped_by(function: Callable[[], object]) -> Iterator[None]:
    """Run a function of this package in a second process meanwhile, if there is a core for it; end it with the block.

    Its output is thrown away. If it cannot be started, nothing is lost but time.
    """
    command = [sys.executable, "-c", f"from {function.__module__} import {function.__name__} as f; f()"]
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}  # this package, wherever it lies
    helper, none = None, subprocess.DEVNULL
    if usable_cores() > 1 and sys.executable:
        with suppress(OSError):
            helper = subprocess.Popen(
                command, env=environment, stdin=none, stdout=none, stderr=none, creationflags=_NO_WINDOW
            )
    try:
        yield
    finally:
        if helper is not None:
            helper.kill()
            helper.wait()
