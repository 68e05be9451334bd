"""Smaller models: weights that are zero, filters that are gone, layers of low rank."""

from tinytorch.compression.distillation import distillation_loss
from tinytorch.compression.fine_tuning import fine_tune
from tinytorch.compression.layer_adaptive import LayerAdaptivePruner
from tinytorch.compression.low_rank import factorize, factorize_linear
from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.schedule import GradualSchedule, OneShot
from tinytorch.compression.semi_structured import SemiStructuredPruner, semi_structured_bytes
from tinytorch.compression.sparse_layers import SparseConv2d, SparseLinear
from tinytorch.compression.sparse_linears import sparse_linears
from tinytorch.compression.sparse_model import SparseModel, to_sparse
from tinytorch.compression.sparse_or_dense import BreakEven, break_even, measure_break_even
from tinytorch.compression.sparsity import measure_sparsity
from tinytorch.compression.structured import prune_filters

__all__ = [
    "BreakEven",
    "GradualSchedule",
    "LayerAdaptivePruner",
    "MagnitudePruner",
    "OneShot",
    "SemiStructuredPruner",
    "SparseConv2d",
    "SparseLinear",
    "SparseModel",
    "break_even",
    "distillation_loss",
    "factorize",
    "factorize_linear",
    "fine_tune",
    "measure_break_even",
    "measure_sparsity",
    "prune_filters",
    "semi_structured_bytes",
    "sparse_linears",
    "to_sparse",
]
