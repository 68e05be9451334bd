"""Instruments: what a computation costs in time, in memory and in operations, and how far a number can be trusted."""

from tinytorch.profiling.dispatch import record_function

__all__ = ["record_function"]
