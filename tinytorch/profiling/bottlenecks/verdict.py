"""What an operation waits for: the price of calling it, memory, or arithmetic.

Memory-bound and compute-bound name the roof above an operation: the one that would hold it if its kernel were perfect.
How near it came is its efficiency. Below a tenth of the roof something else is in the way: arrays that the kernel
writes between its steps, pages of memory that the system has to clear before they are written to, or slow functions
such as exp, which count as one operation.

Sources: the roofs of arithmetic and memory are those of Williams, Waterman & Patterson, "Roofline: an insightful visual
performance model for multicore architectures" (2009), the roof of each cache is that of Ilic, Pratas & Sousa,
"Cache-aware roofline model" (2014). Overhead as the third regime: He, "Making deep learning go brrrr from first
principles" (2022).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tinytorch.acceleration.roofline import TOLERANCE

Verdict = Literal["overhead-bound", "memory-bound", "compute-bound", "ambiguous", "not counted"]

RIDGE_BAND = 1.5
"""Nearer to the ridge than this factor, lifting one limit gains less than it before the other holds. Measured roofs
are less uncertain than that: by `TOLERANCE` each, and by what lies between one cache and the next."""

PRICE_BAND = (0.4, 0.6)
"""Shares of the time that the price of calls may have without being half of it for sure, less or more: what is measured
alone and at best is a little less than what a call costs in the middle of a program."""

INTERPRETED = 100
"""So many times what bytes and operations need is more than a kernel over whole arrays takes, with all its temporary
arrays and slow functions. Loops of Python take thousands of times."""

FAR = 10
"""So many times what one pass over its bytes takes is far from the roof."""

GLUE = 10
"""So many prices of a call may lie between two calls: the module's own Python, the tensors, and the recording."""


class Work(NamedTuple):
    """Calls of one operation together.

    `seconds` that they took, and `price`, what as many calls take that compute nothing; `memory`, the seconds that
    their bytes need under the roof of `level`; `compute`, the seconds that their operations need; `products`, whether
    these are those of matrix products, which use a byte more than once.
    """

    seconds: float
    price: float
    memory: float
    compute: float
    level: str
    products: bool

    @property
    def bound(self) -> float:
        """Seconds that a perfect kernel needs: the larger of both, for it loads while it computes."""
        return max(self.memory, self.compute)

    @property
    def efficiency(self) -> float:
        """The part of the roof that was reached."""
        return self.bound / self.seconds

    @property
    def price_share(self) -> float:
        """The part of the time that any call costs, whatever it computes: at most what its work leaves."""
        return min(self.price, max(self.seconds - self.bound, 0.0)) / self.seconds

    @property
    def far(self) -> bool:
        """Whether it is so far below the roof that its kernel is to blame."""
        return self.seconds > FAR * self.bound


def judge(work: Work) -> tuple[Verdict, str]:
    """Return the verdict, and in a few words what it comes from."""
    seconds, bound = work.seconds, work.bound
    if work.efficiency > 1 + TOLERANCE:
        return "ambiguous", (
            f"above the roof: count, time or level wrong. It is {_number(work.efficiency)} times as fast as "
            f"{work.level} and one thread allow: its data came from a nearer cache, or several threads computed"
        )
    price = f"{_percent(work.price_share)} of the time is the price of its calls"
    if work.price_share > PRICE_BAND[1]:
        return "overhead-bound", price
    if not bound:
        return "overhead-bound", "on paper a view: it waits for the interpreter, or copies what did not lie in a row"
    if seconds > INTERPRETED * bound:
        slower = f"{_number(seconds / bound)} times what its bytes and operations need"
        return "overhead-bound", f"{slower}: it waits for the interpreter"
    if work.price_share > PRICE_BAND[0]:
        return "ambiguous", f"{price}, the rest its work"
    reached = f"{_percent(work.efficiency)} of the roof of"
    why = ": arrays between its steps, fresh pages, or slow functions" if work.far else ""
    balance = work.compute / work.memory if work.memory else float("inf")
    if work.far and not work.products:  # nothing is used twice: what goes beyond one pass over memory is further passes
        return "memory-bound", f"{reached} {work.level}{why}"
    if balance > RIDGE_BAND:
        return "compute-bound", f"{reached} arithmetic{why}"
    if balance < 1 / RIDGE_BAND:
        return "memory-bound", f"{reached} {work.level}{why}"
    return "ambiguous", f"{reached} {work.level} and of arithmetic, which meet here{why}"


def judge_glue(seconds: float, calls: int, price: float) -> tuple[Verdict, str]:
    """Judge the time between calls: their price, unless it is too long for that. `price` is that of one call."""
    each = seconds / calls
    if each > GLUE * price:
        return "not counted", f"{_number(each / price)} prices of a call for each: it also computes, or frees memory"
    return "overhead-bound", "Python between the operations: modules, tensors, and the recording itself"


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.1 else f"{100 * part:.0f} %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
