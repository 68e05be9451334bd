"""Whole filters are removed, not set to zero: what is left is a smaller dense model, which any backend runs faster."""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np

from tinytorch import nn
from tinytorch.nn.finite import check_finite

_PASSES = nn.ReLU | nn.GELU | nn.MaxPool2d | nn.AvgPool2d | nn.Dropout | nn.Flatten  # channels go through one by one


def prune_filters(model: nn.Sequential, ratio: float, exclude: Collection[str] = ()) -> nn.Sequential:
    """Return a smaller copy of a model: of each convolution the filters of least L1 norm are gone.

    With a filter go its bias, its channel of the batch norm behind it, and the weights that the next convolution or
    linear layer has for that channel. A convolution whose output is the model's keeps all filters. The model itself is
    unchanged. The copy is as accurate as the model only after it was trained on for a while.

    Source: Li et al., "Pruning filters for efficient ConvNets" (2017), section 3.

    Parameters
    ----------
    ratio
        The share of filters to remove from each convolution; the nearest whole number, one filter always stays.
    exclude
        Paths of convolutions that keep all.

    Raises
    ------
    ValueError
        If ratio lies outside of 0 ... 1, 1 excluded; the model is no `nn.Sequential`; a layer appears twice, is of a
        kind that channels cannot be followed through, or holds NaN (the message gives its path); or `exclude` names
        no convolution.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio is the share of filters to remove: it lies in 0 ... 1, 1 excluded, got {ratio}")
    if not isinstance(model, nn.Sequential):
        raise ValueError(
            f"filters can be removed from an nn.Sequential only, where what reads a channel is known; "
            f"this is a {type(model).__name__}"
        )
    layers = list(model.named_layers())
    _check(layers, exclude)
    last = max((i for i, (_, layer) in enumerate(layers) if isinstance(layer, nn.Conv2d | nn.Linear)), default=-1)
    channels = _Channels()
    small = []
    for i, (path, layer) in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            weight = channels.of_inputs(layer.weight.data)
            keeps_all = i == last or path in exclude
            kept = _largest(layer.weight.data, 0.0 if keeps_all else ratio)
            small.append(_convolution(layer, weight[kept], kept))
            channels = _Channels(None if keeps_all else kept, layer.out_channels)
        elif isinstance(layer, nn.Linear):
            small.append(_linear(layer, channels.of_inputs(layer.weight.data, path)))
            channels = _Channels()
        elif isinstance(layer, nn.BatchNorm2d):
            small.append(_norm(layer, channels.kept))
        else:
            small.append(copy.deepcopy(layer))
    pruned = nn.Sequential(*small)
    pruned.train(model.training)
    return pruned


class _Channels:
    """Which channels of so many are left of what flows between two layers; all if `kept` is None."""

    def __init__(self, kept: np.ndarray | None = None, count: int = 0) -> None:
        self.kept, self._count = kept, count

    def of_inputs(self, weight: np.ndarray, path: str = "") -> np.ndarray:
        """Return the weights (O, I, ...) for the channels that are left."""
        if self.kept is None:
            return weight
        each, rest = divmod(weight.shape[1], self._count)  # a flattened image has some inputs of each channel
        if rest:
            raise ValueError(f"the linear layer at {path!r} has {weight.shape[1]} inputs, no multiple of {self._count}")
        return weight[:, (self.kept[:, None] * each + np.arange(each)).ravel()]


def _check(layers: list[tuple[str, nn.Module]], exclude: Collection[str]) -> None:
    seen: dict[int, str] = {}
    for path, layer in layers:
        if id(layer) in seen:
            raise ValueError(
                f"{layer!r} is used twice, at {seen[id(layer)]!r} and {path!r}: both read the same channels"
            )
        seen[id(layer)] = path
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d | _PASSES):
            raise ValueError(f"{layer!r} at {path!r}: channels cannot be followed through it")
        if isinstance(layer, nn.Conv2d):
            check_finite(layer.weight.data, f"the weight of the layer at {path!r}")
    convolutions = [path for path, layer in layers if isinstance(layer, nn.Conv2d)]
    if unknown := set(exclude) - set(convolutions):
        raise ValueError(f"exclude names {sorted(unknown)}, but the convolutions are {convolutions}")


def _largest(weight: np.ndarray, ratio: float) -> np.ndarray:
    """Return the numbers of the filters to keep, in their order."""
    norms = np.abs(weight.reshape(len(weight), -1)).sum(axis=1)
    removed = min(round(ratio * len(norms)), len(norms) - 1)
    return np.sort(np.argsort(norms, kind="stable")[removed:])


def _filled(layer: nn.Module, state: dict[str, np.ndarray | None]) -> nn.Module:
    layer.load_state_dict({name: array for name, array in state.items() if array is not None})
    return layer


def _convolution(layer: nn.Conv2d, weight: np.ndarray, kept: np.ndarray) -> nn.Module:
    bias = None if layer.bias is None else layer.bias.data[kept]
    sizes = weight.shape[1], weight.shape[0], layer.kernel_size, layer.stride, layer.padding
    new = nn.Conv2d(*sizes, bias=bias is not None, rng=np.random.default_rng(0))
    return _filled(new, {"weight": weight, "bias": bias})


def _linear(layer: nn.Linear, weight: np.ndarray) -> nn.Module:
    bias = None if layer.bias is None else layer.bias.data
    new = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, rng=np.random.default_rng(0))
    return _filled(new, {"weight": weight, "bias": bias})


def _norm(layer: nn.BatchNorm2d, kept: np.ndarray | None) -> nn.Module:
    kept = np.arange(layer.num_features) if kept is None else kept
    new = nn.BatchNorm2d(len(kept), layer.eps, layer.momentum)
    return _filled(new, {name: array[kept] for name, array in layer.state_dict().items()})
