"""Which steps of a long run a profiler records: `schedule`, as in torch.profiler."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto


class ProfilerAction(Enum):
    """What a profiler does during one step; PyTorch's names."""

    NONE = auto()  # nothing is installed, nothing is paid
    WARMUP = auto()  # observed and thrown away: caches and branch predictors get used to being watched
    RECORD = auto()
    RECORD_AND_SAVE = auto()  # the last step of a window: after it the events are complete

    @property
    def records(self) -> bool:
        """Whether the step's events are kept."""
        return self in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


Schedule = Callable[[int], ProfilerAction]


def schedule(wait: int, warmup: int, active: int, repeat: int = 0) -> Schedule:
    """Skip `wait` steps, warm up for `warmup`, record `active`, and begin again: `repeat` times, or for ever if 0.

    Returns
    -------
    Callable
        The action of step 0, 1, ..., for `ProfilerContext(schedule=...)`.

    Raises
    ------
    ValueError
        If a number is negative or no integer, or `active` is 0.

    Examples
    --------
    >>> plan = schedule(wait=1, warmup=1, active=2, repeat=1)
    >>> [plan(step).name for step in range(5)]
    ['NONE', 'WARMUP', 'RECORD', 'RECORD_AND_SAVE', 'NONE']
    """
    for name, value, least in (("wait", wait, 0), ("warmup", warmup, 0), ("active", active, 1), ("repeat", repeat, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"schedule: {name} is a number of steps, {least} or more, got {value!r}")
    cycle = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        number, at = divmod(step, cycle)
        if (repeat and number >= repeat) or at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD_AND_SAVE if at == cycle - 1 else ProfilerAction.RECORD

    return action


def always(step: int) -> ProfilerAction:
    """Record every step, as one window: what a profiler does without a schedule."""
    return ProfilerAction.RECORD
