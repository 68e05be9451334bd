"""Instruments: what a computation costs in time, in memory and in operations, and how far a number can be trusted."""

from tinytorch.profiling.bottlenecks.find import find_bottlenecks
from tinytorch.profiling.bottlenecks.findings import Bottleneck, Bottlenecks
from tinytorch.profiling.dispatch import record_function
from tinytorch.profiling.flops.count import Count, counts
from tinytorch.profiling.flops.counter import FLOPCounter, UncountedOperationError
from tinytorch.profiling.memory.profiler import MemoryProfiler, training_memory
from tinytorch.profiling.profiler.changes import compare
from tinytorch.profiling.profiler.context import ProfilerContext
from tinytorch.profiling.profiler.schedule import schedule
from tinytorch.profiling.timing.comparison import Comparison
from tinytorch.profiling.timing.measurement import Measurement
from tinytorch.profiling.timing.timer import Timer

__all__ = [
    "Bottleneck",
    "Bottlenecks",
    "Comparison",
    "Count",
    "FLOPCounter",
    "Measurement",
    "MemoryProfiler",
    "ProfilerContext",
    "Timer",
    "UncountedOperationError",
    "compare",
    "counts",
    "find_bottlenecks",
    "record_function",
    "schedule",
    "training_memory",
]
