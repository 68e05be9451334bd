"""A core of this machine for one measurement alone."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_PATIENCE = 0.05  # seconds between looks for a core that is free


@contextmanager
def one_core() -> Iterator[int | None]:
    """Keep this process, and those that it starts, on one of its cores, which no other measurement uses meanwhile.

    What disturbs a measurement there shows in the reference's time, too. Where all cores are in use, it waits for one.
    Yields the core's number, or None where the system cannot do it.
    """
    if sys.platform != "linux":
        yield None
        return
    before = os.sched_getaffinity(0)
    core, lock = _take(sorted(before, reverse=True))  # the first core serves the system more than others do
    try:
        os.sched_setaffinity(0, {core})
        yield core
    finally:
        os.sched_setaffinity(0, before)
        lock.close()  # which ends the lock; so does the end of this process, however it comes


def _take(cores: list[int]) -> tuple[int, IO[str]]:
    import fcntl

    folder = Path(tempfile.gettempdir()) / f"tinymlperf-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for core in cores:
            lock = (folder / str(core)).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            return core, lock
        time.sleep(_PATIENCE)
