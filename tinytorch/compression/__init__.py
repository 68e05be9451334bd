"""Smaller models: weights that are zero, filters that are gone, layers of low rank."""

from tinytorch.compression.low_rank import factorize, factorize_linear
from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.schedule import GradualSchedule, OneShot
from tinytorch.compression.sparsity import measure_sparsity
from tinytorch.compression.structured import prune_filters

__all__ = [
    "GradualSchedule",
    "MagnitudePruner",
    "OneShot",
    "factorize",
    "factorize_linear",
    "measure_sparsity",
    "prune_filters",
]
