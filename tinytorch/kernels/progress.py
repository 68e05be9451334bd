"""A bar that shows how far a loop has come, and nothing where nobody waits."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """Return tqdm's bar over an iterable, or one to be moved by hand, that goes away at its end.

    On a terminal it is written to stderr, elsewhere to stdout: in a notebook stderr is for what went wrong.
    """
    file = sys.stderr if sys.stderr.isatty() else sys.stdout
    return tqdm(iterable, leave=False, file=file, **options)
