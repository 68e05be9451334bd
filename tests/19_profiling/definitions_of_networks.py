"""The definitions of `definitions_of_groups.py`, continued: networks in whole numbers, and networks without zeros."""

import importlib
from itertools import pairwise

import numpy as np

from tinytorch.ops import integers, sparse

n = importlib.import_module("tests.19_profiling.counting_numbers")
_first = importlib.import_module("tests.19_profiling.definitions")
groups = importlib.import_module("tests.19_profiling.definitions_of_groups")
Definition = _first.Definition


# Networks of whole numbers: one layer after another


smaller = n._called(min, 2)
times = n._called(lambda a, b: float(np.float32(a) * np.float32(b)), 2)


def code(x, zero_point, lowest, highest):
    return groups.rounded(smaller(n.larger(x, lowest - zero_point), highest - zero_point)) + zero_point


def cropped(x, kernel, stride, padding, pool):
    """What the windows of those sums see that pooling uses, with a margin of zeros."""
    x = _first.padded(x, padding)
    sides = (((s - kernel) // stride + 1) // pool * pool for s in x.shape[2:])
    rows, columns = ((side - 1) * stride + kernel for side in sides)
    return x[:, :, :rows, :columns]


def integer_network(x, layers, network, meaning):
    x = code(groups.divided(x, network.scale), network.zero_point, 0, network.highest)
    for (kind, *arrays), layer in zip(layers, network.layers, strict=True):
        if kind == "pooling":
            share = layer.kernel**2
            mean = lambda window, share=share: groups.rounded(groups.divided(n.total(window), share))  # noqa: E731
            x = groups.pool(x, layer.kernel, layer.stride, mean if layer.mean else n.largest)
            continue
        weight, bias, multiplier = arrays[:3]
        x = x - layer.input_zero_point
        if kind == "linear":
            scaled = times(_first.linear_layer(x.reshape(len(x), -1), weight, bias), multiplier)
            x = scaled if layer.floats else code(scaled, layer.zero_point, layer.lowest, layer.highest)
            continue
        seen = cropped(x, weight.shape[2], layer.stride, layer.padding, layer.pool)
        scaled = times(_first.conv2d(seen, weight, bias, layer.stride, 0), multiplier[:, None, None])
        x = code(scaled, layer.zero_point, layer.lowest, layer.highest)
        x = groups.pool(x, layer.pool, layer.pool, n.largest) if layer.pool > 1 else x
    if meaning is None:
        return x
    scale, zero_point = meaning
    return smaller(n.larger((x - zero_point) * scale, -np.finfo(np.float32).max), np.finfo(np.float32).max)


# Networks without zeros: `stored` are places and weights of each output


def stored(values, indices, indptr):
    ends = [int(end) for end in indptr]
    return [[(int(indices[k]), values[k]) for k in range(a, b)] for a, b in pairwise(ends)]


def sparse_network(x, layers, network):
    for (kind, values, indices, indptr, bias, *_), layer in zip(layers, network.layers, strict=True):
        rows, kernel, stride, side = stored(values, indices, indptr), 1, 1, 1
        if kind == "linear":
            seen = x.reshape(len(x), -1, 1, 1)
        else:
            kernel, stride, side = layer.kernel, layer.stride, layer.pool
            seen = cropped(x, kernel, stride, layer.padding, side)
        x = np.empty((len(x), len(rows), *((s - kernel) // stride + 1 for s in seen.shape[2:])), object)
        for image_, o, i, j in np.ndindex(x.shape):
            window = seen[image_, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel].reshape(-1)
            y = n.dot((weight, window[place]) for place, weight in rows[o])
            y = y if bias is None else y + bias[o]
            x[image_, o, i, j] = n.larger(y, 0.0) if layer.relu else y
        if side > 1:
            share = side**2
            mean = lambda window, share=share: n.total(window) / share  # noqa: E731
            x = groups.pool(x, side, side, mean if layer.mean else n.largest)
        x = x[:, :, 0, 0] if kind == "linear" else x
    return x


def sparse_layer_grad(g, saved, needs):
    ((kind, values, indices, indptr, *_),), network = saved
    (layer,), shape_ = network.layers, (len(g), *network.input_shape)
    kernel, stride, padding = (1, 1, 0) if kind == "linear" else (layer.kernel, layer.stride, layer.padding)
    dx = _first.padded(n.zeros(shape_ if kind != "linear" else (*shape_, 1, 1)), padding)
    g = g[..., None, None] if kind == "linear" else g
    rows = stored(values, indices, indptr)
    for image_, o, i, j in np.ndindex(g.shape):
        for place, weight in rows[o]:
            c, a, b = np.unravel_index(place, (dx.shape[1], kernel, kernel))
            pixel = image_, c, i * stride + a, j * stride + b
            dx[pixel] = n.dot([(g[image_, o, i, j], weight)], dx[pixel])
    height, width = (s - 2 * padding for s in dx.shape[2:])
    return dx[:, :, padding : padding + height, padding : padding + width].reshape(shape_), None, None


DEFINITIONS = {
    **groups.DEFINITIONS,
    integers.IntegerNetwork: Definition(integer_network, None),
    sparse.SparseLayer: Definition(sparse_network, sparse_layer_grad),
    sparse.SparseNetwork: Definition(sparse_network, None),
}
