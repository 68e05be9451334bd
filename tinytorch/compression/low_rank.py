"""A linear layer as two thin ones: the weights that are nearest to its own, of all that have so low a rank."""

from __future__ import annotations

import copy

import numpy as np

from tinytorch import nn
from tinytorch.nn.finite import check_finite


def factorize_linear(linear: nn.Linear, rank: int) -> nn.Sequential:
    """Return two linear layers, in_features -> rank -> out_features, whose product is nearest to the layer's weight.

    Nearest in the sum of squared differences, which is that of the squared singular values beyond `rank` (Eckart &
    Young, "The approximation of one matrix by another of lower rank", 1936). The layer itself is unchanged.

    Raises
    ------
    ValueError
        If rank lies outside of 1 ... min(in_features, out_features), or the weight holds NaN or infinite numbers.
    """
    check_finite(linear.weight.data, "the weight")
    limit = min(linear.in_features, linear.out_features)
    if not 1 <= rank <= limit:
        raise ValueError(
            f"the rank of {linear.out_features} x {linear.in_features} weights is 1 to {limit}, not {rank}"
        )
    return _factors(linear, *np.linalg.svd(linear.weight.data.astype(np.float64), full_matrices=False), rank)


def factorize(model: nn.Sequential, energy: float) -> nn.Sequential:
    """Return a copy of a model in which linear layers are two thin ones, where that takes fewer numbers.

    A layer that was pruned has as many as are not zero: its factors would have none that are.

    Parameters
    ----------
    energy
        The share of a weight's sum of squares to keep at least, above 0 and up to 1; the rank is the smallest for it.

    Raises
    ------
    ValueError
        If energy lies outside of that, the model is no `nn.Sequential` or has no linear layer, or a weight holds NaN or
        infinite numbers (the message gives its layer's path).
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy is the share of the sum of squares to keep: above 0 and up to 1, got {energy}")
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"layers are replaced in an nn.Sequential only; this is a {type(model).__name__}")
    if not any(isinstance(layer, nn.Linear) for _, layer in model.named_layers()):
        raise ValueError(
            "nothing to factorize: the model has no nn.Linear; factorize before layers are made sparse or quantized"
        )
    layers: list[nn.Module] = []
    for path, layer in model.named_layers():
        if not isinstance(layer, nn.Linear):
            layers.append(copy.deepcopy(layer))
            continue
        check_finite(layer.weight.data, f"the weight of the layer at {path!r}")
        u, s, v = np.linalg.svd(layer.weight.data.astype(np.float64), full_matrices=False)
        rank = _rank(s, energy)
        saves = rank * (layer.in_features + layer.out_features) < np.count_nonzero(layer.weight.data)
        layers += list(_factors(layer, u, s, v, rank)) if saves else [copy.deepcopy(layer)]
    thin = nn.Sequential(*layers)
    thin.train(model.training)
    return thin


def _rank(s: np.ndarray, energy: float) -> int:
    """Return how many of the singular values, the largest first, hold so much of their sum of squares."""
    held = np.cumsum(s**2)
    return min(int(np.searchsorted(held, energy * held[-1] * (1 - 1e-12))) + 1, len(s))


def _factors(linear: nn.Linear, u: np.ndarray, s: np.ndarray, v: np.ndarray, rank: int) -> nn.Sequential:
    root = np.sqrt(s[:rank])  # half of the scale to either side: training on, both have gradients of one size
    rng = np.random.default_rng(0)
    first = nn.Linear(linear.in_features, rank, bias=False, rng=rng)
    second = nn.Linear(rank, linear.out_features, bias=linear.bias is not None, rng=rng)
    first.load_state_dict({"weight": root[:, None] * v[:rank]})
    bias = {} if linear.bias is None else {"bias": linear.bias.data}
    second.load_state_dict({"weight": u[:, :rank] * root, **bias})
    return nn.Sequential(first, second)
