"""One bar over all runs. How long each takes is known from before; so the clock alone moves it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

from tqdm import tqdm

_FORM = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


class Progress:
    """A bar as long as the seconds that the runs will take.

    Parameters
    ----------
    takes
        Seconds by the name of a run. One that takes longer holds the bar where it would have ended.
    """

    def __init__(self, takes: Mapping[str, float]) -> None:
        self._takes, self._names = takes, list(takes)
        self._step = 1.0 if sys.stderr.isatty() else 60.0  # seconds; a log keeps every line
        self._bar = tqdm(total=sum(takes.values()), bar_format=_FORM, desc="benchmarks", mininterval=0.0)

    @contextmanager
    def run(self, name: str) -> Iterator[None]:
        """Show that this run is under way; the bar is where it ends when it is over, not if it fails."""
        number = self._names.index(name)
        before, done = sum(self._takes[other] for other in self._names[:number]), Event()
        self._bar.set_description_str(f"[{number + 1}/{len(self._names)}] {name}")
        mover = Thread(target=self._move, args=(before, self._takes[name], done), daemon=True)
        mover.start()
        try:
            yield
        finally:
            done.set()
            mover.join()
        self._go(before + self._takes[name])

    def print(self, text: str) -> None:
        """Print above the bar, to standard output."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _move(self, before: float, takes: float, done: Event) -> None:
        start = time.perf_counter()
        while not done.wait(self._step):
            self._go(before + min(time.perf_counter() - start, takes))

    def _go(self, seconds: float) -> None:
        self._bar.update(seconds - self._bar.n)
