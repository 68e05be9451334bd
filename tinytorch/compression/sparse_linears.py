"""`sparse_linears`: a pruned model of any kind, a GPT for example, whose linear layers leave their zeros out."""

from __future__ import annotations

from tinytorch import nn
from tinytorch.compression.sparse_layers import SparseLinear
from tinytorch.compression.sparse_or_dense import BreakEven, break_even
from tinytorch.nn.exchange import exchange_linears


def sparse_linears(model: nn.Module, threshold: BreakEven | None = None) -> nn.Module:
    """Return a copy of a pruned model with a `SparseLinear` for each `nn.Linear` of enough zeros, at any depth.

    Everything else stays as it is, a linear layer among it whose weight is the table of an embedding, as that of a
    tied head. The model itself is not changed; the copy is in evaluation mode. A GPT's step behind an `nn.KVCache`
    stays one compiled call, whichever of its layers are sparse. For an `nn.Sequential`, `to_sparse` does more:
    convolutions, and what follows a layer in the same go.

    Parameters
    ----------
    threshold
        The share of zeros from which on a layer is sparse; left out, `break_even()`, as it was measured here.

    Raises
    ------
    ValueError
        If the model has no linear layer, or a weight is NaN or infinite: the message gives its place.
    """
    limit = break_even() if threshold is None else threshold

    def sparse(layer: nn.Linear) -> SparseLinear | None:
        made = SparseLinear.from_dense(layer)
        return made if made.sparsity >= limit.linear else None

    copied = exchange_linears(model, sparse)
    if copied is None:
        raise ValueError(f"there is nothing to make sparse: the {type(model).__name__} has no linear layer of its own")
    return copied.eval()
