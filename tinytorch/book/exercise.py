"""`check`: tells a reader, without any server, whether an exercise's answer is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def check(answer: Callable[..., Any], expected: Mapping[tuple[Any, ...], Any]) -> None:
    """Call the reader's function and print "correct", or the first case where it is not.

    Parameters
    ----------
    answer
        The function to check. It may raise, or return anything: that is said, not raised.
    expected
        The right result for each tuple of arguments; numbers and arrays, compared exactly.

    Examples
    --------
    >>> check(lambda a, b: a + b, {(1, 2): 3, (2, 2): 4})
    correct: 2 of 2 cases
    >>> check(lambda a, b: ..., {(1, 2): 3})
    not yet: <lambda>(1, 2) should be 3, and is still ...
    """
    name = getattr(answer, "__name__", "your function")
    for arguments, right in expected.items():
        call = f"{name}({', '.join(map(repr, arguments))})"
        try:
            got = answer(*arguments)
        except Exception as error:  # whatever a reader's code raises is part of the answer
            print(f"not yet: {call} should be {right}, but raises {type(error).__name__}: {error}")
            return
        if got is ...:
            print(f"not yet: {call} should be {right}, and is still ...")
            return
        if not np.array_equal(got, right):
            print(f"not yet: {call} should be {right}, not {got}")
            return
    print(f"correct: {len(expected)} of {len(expected)} cases")
