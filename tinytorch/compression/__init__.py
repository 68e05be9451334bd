"""Smaller models: weights that are zero, and what makes them so."""

from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.schedule import GradualSchedule, OneShot
from tinytorch.compression.sparsity import measure_sparsity
from tinytorch.compression.structured import prune_filters

__all__ = ["GradualSchedule", "MagnitudePruner", "OneShot", "measure_sparsity", "prune_filters"]
