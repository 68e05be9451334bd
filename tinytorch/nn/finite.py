"""`check_finite`: numbers that nothing can be made of are named, with their place."""

from __future__ import annotations

import numpy as np


def check_finite(x: np.ndarray, what: str, advice: str = "") -> None:
    """Raise a ValueError if x, called `what`, is NaN or infinite anywhere: it says at how many places, and where."""
    refuse(~np.isfinite(x), f"{what} is NaN or infinite", advice)


def refuse(wrong: np.ndarray, what: str, advice: str = "") -> None:
    """Raise a ValueError if a bool is true: `what` is so at as many of all places, and the place of the first one."""
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        end = f": {advice}" if advice else ""
        raise ValueError(f"{what} at {np.count_nonzero(wrong)} of {wrong.size} places, first at {first}{end}")
