"""What limits a computation: a cache simulator, and this machine's memory and arithmetic as measured."""

from typing import TYPE_CHECKING, Any

from tinytorch.acceleration.cache import CacheCounts, CacheHierarchy, CacheLevel, Trace, matmul_trace
from tinytorch.acceleration.memory import MemoryHierarchy, measure_memory_hierarchy
from tinytorch.acceleration.plateaus import Plateau
from tinytorch.acceleration.roofline import AboveRoofError, Point, Roofline
from tinytorch.acceleration.system import ReportedCache, reported_caches

if TYPE_CHECKING:
    from tinytorch.acceleration.plan import Plan as Plan

__all__ = [
    "AboveRoofError",
    "CacheCounts",
    "CacheHierarchy",
    "CacheLevel",
    "MemoryHierarchy",
    "Plan",
    "Plateau",
    "Point",
    "ReportedCache",
    "Roofline",
    "Trace",
    "matmul_trace",
    "measure_memory_hierarchy",
    "reported_caches",
]


def __getattr__(name: str) -> Any:
    if name == "Plan":  # its module imports Numba
        from tinytorch.acceleration.plan import Plan

        return Plan
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
