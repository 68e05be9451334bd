"""The definitions of `definitions.py`, continued: what works on groups of numbers, or moves them."""

import importlib
import math

import numpy as np

from tinytorch.ops import activation, decoding, dynamic, embedding, image, normalization, reduction, shape

n = importlib.import_module("tests.19_profiling.counting_numbers")
_first = importlib.import_module("tests.19_profiling.definitions")
Definition, one = _first.Definition, _first.one


# Normalization: groups are rows of (groups, elements), each element with its own weight


def normalized(x, weight, bias, eps):
    out, means, variances = np.empty(x.shape, object), [], []
    for r, row in enumerate(x):
        mean = n.total(row) / len(row)
        centred = [v - mean for v in row]
        var = n.total(v * v for v in centred) / len(row)
        inv_std = 1 / n.sqrt(var + eps)
        for i, v in enumerate(centred):
            out[r, i] = v * inv_std * weight[r, i] + bias[r, i]
        means.append(mean)
        variances.append(var)
    return out, means, variances


def normalized_grad(g, x, weight, mean, inv_std, parameter):
    """`parameter` maps (row, element) to the weight's number."""
    dx, dw, db = (
        np.empty(x.shape, object),
        n.zeros(parameter.max(initial=-1) + 1),
        n.zeros(parameter.max(initial=-1) + 1),
    )
    for r in range(len(x)):
        row = [(v - mean[r]) * inv_std[r] for v in x[r]]
        gw = [a * b for a, b in zip(g[r], weight[r], strict=True)]
        mean_g, mean_gn = n.total(gw) / len(row), n.total(a * b for a, b in zip(gw, row, strict=True)) / len(row)
        for i, v in enumerate(row):
            to = parameter[r, i]
            dw[to], db[to] = dw[to] + g[r, i] * v, db[to] + g[r, i]
            dx[r, i] = (gw[i] - mean_g - v * mean_gn) * inv_std[r]
    return dx, dw, db


def channels(x):
    """(N, C, H, W) -> (C, N H W)."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def images(rows, like):
    """And back."""
    shape_ = like.shape
    return rows.reshape(shape_[1], shape_[0], *shape_[2:]).swapaxes(0, 1)


def layer_norm(x, weight, bias, eps):
    rows = x.reshape(-1, x.shape[-1])
    y, _, _ = normalized(rows, *(np.broadcast_to(p, rows.shape) for p in (weight, bias)), eps)
    return y.reshape(x.shape)


def layer_norm_grad(g, saved, needs):
    x, weight, mean, inv_std = saved
    rows = x.reshape(-1, x.shape[-1])
    number = np.broadcast_to(np.arange(x.shape[-1]), rows.shape)
    weights = np.broadcast_to(weight, rows.shape)
    dx, dw, db = normalized_grad(g.reshape(rows.shape), rows, weights, mean.reshape(-1), inv_std.reshape(-1), number)
    return dx.reshape(x.shape), *((p if len(rows) else n.zeros(weight.shape)) for p in (dw, db)), None


def batch_norm(x, weight, bias, eps, running):
    rows = channels(x)
    y, means, variances = normalized(rows, *(np.broadcast_to(p[:, None], rows.shape) for p in (weight, bias)), eps)
    mean, var, momentum = running
    count = rows.shape[1]
    for c in range(len(rows)):
        mean[c] = mean[c] + momentum * (means[c] - mean[c])
        var[c] = var[c] + momentum * (variances[c] * (count / max(count - 1, 1)) - var[c])
    return images(y, x)


def batch_norm_grad(g, saved, needs):
    x, weight, mean, inv_std = saved
    rows = channels(x)
    number = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
    weights = np.broadcast_to(weight[:, None], rows.shape)
    dx, dw, db = normalized_grad(channels(g), rows, weights, mean, inv_std, number)
    return images(dx, x), dw, db, None, None


def frozen(x, weight, bias, eps, running):
    mean, var = running
    scale = weight * (1 / n.sqrt(var + eps))
    shift = bias - scale * mean
    return x * scale[:, None, None] + shift[:, None, None]


def frozen_grad(g, saved, needs):
    x, scale, mean, inv_std = saved
    dw = [
        n.total(a * ((v - mean[c]) * inv_std[c]) for a, v in zip(*rows, strict=True))
        for c, rows in enumerate(zip(channels(g), channels(x), strict=True))
    ]
    db = [n.total(row) for row in channels(g)]
    return g * scale[:, None, None] if needs[0] else None, dw, db, None, None


NORMALIZATION = {
    normalization.LayerNorm: Definition(layer_norm, layer_norm_grad),
    normalization.BatchNorm2d: Definition(batch_norm, batch_norm_grad),
    normalization.FrozenBatchNorm2d: Definition(frozen, frozen_grad),
}


# Reductions and windows


def reduced(x, axis, keepdims, function):
    axes = range(x.ndim) if axis is None else [a % x.ndim for a in np.atleast_1d(axis)]
    groups: dict[tuple, list] = {}
    for at in np.ndindex(x.shape):
        groups.setdefault(tuple(0 if d in axes else i for d, i in enumerate(at)), []).append(x[at])
    out = np.empty(tuple(1 if d in axes else s for d, s in enumerate(x.shape)), object)
    for at, group in groups.items():
        out[at] = function(group)
    return out if keepdims else out.reshape([s for d, s in enumerate(x.shape) if d not in axes])


def stretched(g, like, axis, keepdims):
    if axis is not None and not keepdims:
        g = np.expand_dims(g, axis)
    return np.broadcast_to(g, like)


def mean_grad(g, saved, needs):
    like, axis, keepdims, share = saved
    return stretched(np.asarray(g * share, object), like, axis, keepdims), None, None


def max_grad(g, saved, needs):
    x, y, axis, keepdims = saved
    equal = n.equal(x, stretched(y, x.shape, axis, keepdims))
    ties = reduced(equal, axis, True, n.total)
    return equal / ties * stretched(g, x.shape, axis, keepdims), None, None


def windows(y, kernel, stride):
    for image_, c, i, j in np.ndindex(y.shape):
        pixels = [(image_, c, i * stride + a, j * stride + b) for a in range(kernel) for b in range(kernel)]
        yield (image_, c, i, j), pixels


def pool(x, kernel, stride, function):
    out = np.empty((*x.shape[:2], *((s - kernel) // stride + 1 for s in x.shape[2:])), object)
    for at, pixels in windows(out, kernel, stride):
        out[at] = function([x[pixel] for pixel in pixels])
    return out


def max_pool_grad(g, saved, needs):
    x, y, kernel, stride = saved
    out = n.zeros(x.shape)
    for at, pixels in windows(y, kernel, stride):
        equal = [n.equal(x[pixel], y[at]) for pixel in pixels]
        first = pixels[[bool(e) for e in equal].index(True)]
        out[first] = out[first] + g[at]
    return out, None, None


def average_pool_grad(g, saved, needs):
    like, kernel, stride = saved
    out = n.zeros(like)
    for at, pixels in windows(g, kernel, stride):
        share = g[at] / (kernel * kernel)
        for pixel in pixels:
            out[pixel] = out[pixel] + share
    return out, None, None


GROUPS = {
    reduction.Sum: Definition(
        lambda x, axis, keepdims: reduced(x, axis, keepdims, n.total),
        lambda g, saved, needs: (stretched(g, *saved), None, None),
    ),
    reduction.Mean: Definition(
        lambda x, axis, keepdims: reduced(x, axis, keepdims, lambda group: n.total(group) / len(group)), mean_grad
    ),
    reduction.Max: Definition(lambda x, axis, keepdims: reduced(x, axis, keepdims, n.largest), max_grad),
    image.MaxPool2d: Definition(lambda x, kernel, stride: pool(x, kernel, stride, n.largest), max_pool_grad),
    image.AvgPool2d: Definition(
        lambda x, kernel, stride: pool(x, kernel, stride, lambda window: n.total(window) / (kernel * kernel)),
        average_pool_grad,
    ),
}


# What moves numbers


def is_basic(index) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(i is None or i is Ellipsis or isinstance(i, int | slice) for i in parts)


def places(like, index):
    """The number of every element that an index chooses; arrays in the index are read."""
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(np.vectorize(int, otypes=[int])(i) if isinstance(i, np.ndarray) else i for i in parts)
    return np.arange(math.prod(like)).reshape(like)[parts]


def get_item(x, index):
    return x[index] if is_basic(index) else n.copied(x.reshape(-1)[places(x.shape, index)])


def get_item_grad(g, saved, needs):
    like, index = saved
    out = n.zeros(like)
    if is_basic(index):
        out[index] = n.copied(g)
    else:
        to = places(like, index)
        for at in np.ndindex(g.shape):
            out.flat[to[at]] = out.flat[to[at]] + g[at]
    return out, None


def embed(weight, ids):
    out = np.empty((*ids.shape, weight.shape[1]), object)
    for at in np.ndindex(ids.shape):
        out[at] = n.copied(weight[int(ids[at])])
    return out


def embed_grad(g, saved, needs):
    like, ids = saved
    out = n.zeros(like)
    for at in np.ndindex(ids.shape):
        row = int(ids[at])
        for j in range(like[1]):
            out[row, j] = out[row, j] + g[at][j]
    return out, None


MOVES = {
    shape.Reshape: Definition(lambda x, to: x.reshape(to), one(lambda g, like: g.reshape(like))),
    shape.Permute: Definition(
        lambda x, axes: x.transpose(axes), one(lambda g, axes: np.moveaxis(g, range(g.ndim), axes))
    ),
    shape.Concatenate: Definition(
        lambda *xs, axis: n.copied(np.concatenate(xs, axis)),
        lambda g, saved, needs: tuple(np.split(g, n.plain(saved[0]).astype(int), saved[1])),
    ),
    shape.GetItem: Definition(get_item, get_item_grad, gathers=True),
    embedding.Embedding: Definition(embed, embed_grad, gathers=True),
}


# A GPT's step: other definitions, one after another


def decoder_step(tokens, ids, weights, keys, values, heads, past, starts, eps):
    blocks, positions, norm, norm_b, head = weights
    x = embed(tokens, ids[:, 0]) + embed(positions, np.array([past - int(start) for start in starts]))
    for block, k, v in zip(blocks, keys, values, strict=True):
        x = block_step(x, block, k, v, heads, past, starts, eps)
    return _first.linear_layer(layer_norm(x, norm, norm_b, eps), head, None)[:, None]


def block_step(x, weights, keys, values, heads, past, starts, eps):
    norm1, norm1_b, qkv, qkv_b, out, out_b, norm2, norm2_b, up, up_b, down, down_b = weights
    shared = keys.shape[1]
    split = _first.linear_layer(layer_norm(x, norm1, norm1_b, eps), qkv, qkv_b)
    split = split.reshape(len(x), heads + 2 * shared, -1)
    for cache, new in ((keys, split[:, heads : heads + shared]), (values, split[:, heads + shared :])):
        n.copied(cache[:, :, past])  # a place that is written counts as one that is read
        cache[:, :, past] = new
    group = np.repeat(np.arange(shared), heads // shared)
    seen = np.empty(x.shape, object)
    for b, query in enumerate(split[:, :heads, None]):
        held = (cache[b : b + 1, group, int(starts[b]) : past + 1] for cache in (keys, values))
        seen[b] = _first.attend(query[None], *held, False).reshape(-1)
    x = x + _first.linear_layer(seen, out, out_b)
    wide = _first.linear_layer(layer_norm(x, norm2, norm2_b, eps), up, up_b)
    wide = _first.ACTIVATIONS[activation.GELU].forward(wide)
    return x + _first.linear_layer(wide, down, down_b)


# A linear layer whose input is rounded: divided in float32 here too, lest a half be rounded the other way


size, rounded = n._called(abs), n._called(round)
divided = n._called(lambda a, b: float(np.float32(a) / np.float32(b)), 2)


def dynamic_linear(x, weight, scale, bias, product):
    rows = x.reshape(-1, x.shape[-1])
    out = np.empty((len(rows), len(weight)), object)
    for r, row in enumerate(rows):
        step = n.larger(divided(n.largest(size(v) for v in row), 127), np.finfo(np.float32).tiny)
        codes = [rounded(divided(v, step)) for v in row]
        for o, weights in enumerate(weight):
            y = n.dot(zip(codes, weights, strict=True)) * scale[o] * step
            out[r, o] = y if bias is None else y + bias[o]
    return out.reshape(*x.shape[:-1], len(weight))


STEPS = {decoding.DecoderStep: Definition(decoder_step, None, gathers=True)}
ROUNDED = {dynamic.DynamicLinear: Definition(dynamic_linear, None)}
DEFINITIONS = {
    **_first.ELEMENTWISE, **_first.ACTIVATIONS, **_first.PRODUCTS, **NORMALIZATION, **GROUPS, **MOVES, **STEPS,
    **ROUNDED,
}  # fmt: skip
