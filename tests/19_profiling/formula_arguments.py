"""What each operation is tried on: small arrays of any shape that it takes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch import Function
from tinytorch.kernels import int8, sparse
from tinytorch.kernels.decoding import BlockWeights, DecoderWeights
from tinytorch.kernels.dynamic import Product
from tinytorch.ops import (
    activation,
    attention,
    decoding,
    dynamic,
    elementwise,
    embedding,
    image,
    integers,
    linear,
    loss,
    normalization,
    reduction,
    shape,
)
from tinytorch.ops import sparse as sparse_ops

SIZES = st.integers(1, 3)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3) | st.just((0, 3))
VECTORS = hnp.array_shapes(min_dims=1, max_dims=3, max_side=3)
IMAGES = st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(3, 5), st.integers(3, 5))
DTYPES = st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])
SEEDS = st.integers(0, 2**32 - 1)
ARGUMENTS: dict[type[Function], Callable] = {}


def values(draw, shape, dtype, positive=False):
    x = np.asarray(np.random.default_rng(draw(SEEDS)).standard_normal(shape))
    return np.asarray(np.exp(0.5 * x) if positive else x).astype(dtype)


def arguments(*functions: type[Function]) -> Callable:
    """Say how arguments of Functions are drawn: the floating arrays among them become tensors."""

    def note(make: Callable) -> Callable:
        for function in functions:
            ARGUMENTS[function] = lambda draw: make(draw, draw(DTYPES))
        return make

    return note


@arguments(elementwise.Add, elementwise.Sub, elementwise.Mul, elementwise.Div, elementwise.Maximum)
def _(draw, dtype):
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)).input_shapes
    two = [values(draw, s, draw(DTYPES), positive=True) for s in shapes]
    number = draw(st.sampled_from([None, None, 0, 1]))
    if number is not None:
        two[number] = 2.5
    return two


@arguments(elementwise.Neg, elementwise.Exp, elementwise.Log, elementwise.Tanh, activation.ReLU, activation.GELU)
def _(draw, dtype):
    return [values(draw, draw(SHAPES), dtype, positive=True)]


@arguments(elementwise.Pow)
def _(draw, dtype):
    return [values(draw, draw(SHAPES), dtype, positive=True), draw(st.sampled_from([0, 1, 2, -1, 0.5]))]


@arguments(activation.Dropout)
def _(draw, dtype):
    return [values(draw, draw(SHAPES), dtype), draw(st.sampled_from([0.0, 0.3])), np.random.default_rng(draw(SEEDS))]


@arguments(activation.Softmax)
def _(draw, dtype):
    return [values(draw, draw(VECTORS), dtype)]


@arguments(loss.CrossEntropy)
def _(draw, dtype):
    rows, classes = draw(SIZES), draw(SIZES)
    targets = np.random.default_rng(draw(SEEDS)).integers(0, classes, rows)
    return [values(draw, (rows, classes), dtype), targets.astype(draw(st.sampled_from([np.int64, np.uint8])))]


@arguments(linear.MatMul)
def _(draw, dtype):
    rule = np.matmul.signature
    shapes = draw(hnp.mutually_broadcastable_shapes(signature=rule, max_dims=2, min_side=1, max_side=3))
    return [values(draw, s, dtype) for s in shapes.input_shapes]


@arguments(linear.Linear)
def _(draw, dtype):
    ins, outs = draw(SIZES), draw(SIZES)
    batch = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    bias = values(draw, (outs,), dtype) if draw(st.booleans()) else None
    return [values(draw, (*batch, ins), dtype), values(draw, (outs, ins), dtype), bias]


@arguments(dynamic.DynamicLinear)
def _(draw, dtype):
    ins, outs, dtype = draw(SIZES), draw(SIZES), np.dtype(np.float32)
    batch = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    bias = values(draw, (outs,), dtype) if draw(st.booleans()) else None
    weight = np.random.default_rng(draw(SEEDS)).integers(-127, 128, (outs, ins), np.int8)
    scale = values(draw, (outs,), dtype, positive=True)
    return [values(draw, (*batch, ins), dtype), weight, scale, bias, Product(weight, scale)]


@arguments(integers.IntegerNetwork)
def _(draw, dtype):
    rng, shape = np.random.default_rng(draw(SEEDS)), draw(IMAGES)[1:]
    sizes, first, z, layers = shape, 7, 7, []

    def weights(outs, inner, incoming):
        outgoing = draw(st.sampled_from([0, 5]))
        return outgoing, {
            "weight": rng.integers(-127, 128, (outs, *inner), np.int8),
            "bias": rng.integers(-999, 1000, outs, np.int32),
            "multiplier": rng.uniform(0.001, 0.01, outs).astype(np.float32),
            "input_zero_point": incoming,
            "zero_point": outgoing,
            "lowest": draw(st.sampled_from([0, outgoing])),
            "highest": draw(st.sampled_from([255, 15])),
        }

    for convolves in (draw(st.booleans()), draw(st.booleans())):
        if convolves:
            kernel, stride, padding, pool = draw(SIZES), draw(SIZES), draw(st.integers(1, 2)), draw(st.integers(1, 2))
            after = [(n + 2 * padding - kernel) // stride + 1 for n in sizes[1:]]
            pool = pool if min(after) >= pool else 1
            outs = draw(SIZES)
            z, numbers = weights(outs, (sizes[0], kernel, kernel), z)
            layers.append(int8.Convolution(**numbers, stride=stride, padding=padding, pool=pool))
        else:
            kernel, stride, outs = min(draw(SIZES), *sizes[1:]), draw(SIZES), sizes[0]
            layers.append(int8.Pooling(kernel, stride, draw(st.booleans())))
        sizes = int8.Network(layers, shape).output_shape
    for _ in range(draw(st.integers(0, 2))):
        outs = draw(SIZES)
        z, numbers = weights(outs, (int(np.prod(sizes)),), z)
        layers.append(int8.Linear(**numbers))
        sizes = (outs,)
    if len(sizes) == 1 and draw(st.booleans()):
        layers[-1] = replace(layers[-1], floats=True)
    network = int8.Network(layers, shape, 0.02, first, draw(st.sampled_from([255, 15])))
    floats = isinstance(layers[-1], int8.Linear) and layers[-1].floats
    meaning = (0.1, z) if not floats and draw(st.booleans()) else None
    return [values(draw, (draw(SIZES), *shape), np.dtype(np.float32)), network.described, network, meaning]


def few(draw, outs, ins):
    """Rows of weights of which about a half is zero, not all."""
    dense = values(draw, (outs, ins), np.dtype(np.float32))
    dense[np.random.default_rng(draw(SEEDS)).random(dense.shape) < 0.5] = 0
    dense[0, 0] = 1
    return sparse.Rows.from_dense(dense)


def sparse_layers(draw, many):
    """One layer without ReLU and pooling, or two of any kind."""
    dtype, layers, shape = np.dtype(np.float32), [], draw(st.just((draw(SIZES),)) | IMAGES.map(lambda s: s[1:]))
    sizes = shape

    def bias(outs):
        return values(draw, (outs,), dtype) if draw(st.booleans()) else None

    for _ in range(2 if many else 1):
        if len(sizes) == 1 or (layers and draw(st.booleans())):
            outs, relu = draw(SIZES), many and draw(st.booleans())
            layers.append(sparse.Linear(few(draw, outs, int(np.prod(sizes))), bias(outs), relu))
        else:
            outs, kernel, stride, padding = draw(SIZES), draw(SIZES), draw(SIZES), draw(st.integers(0, 2))
            after = [(n + 2 * padding - kernel) // stride + 1 for n in sizes[1:]]
            padding += 1 if min(after) < 1 else 0
            pool = draw(st.sampled_from([1, 2])) if many and min(after) >= 2 else 1
            relu, mean = many and draw(st.booleans()), draw(st.booleans())
            rows = few(draw, outs, sizes[0] * kernel**2)
            layers.append(sparse.Convolution(rows, kernel, bias(outs), stride, padding, relu, pool, mean))
        sizes = sparse.Network(layers, shape).output_shape
    network = sparse.Network(layers, shape)
    return [values(draw, (draw(SIZES), *shape), dtype), network.described, network]


ARGUMENTS[sparse_ops.SparseLayer] = lambda draw: sparse_layers(draw, many=False)
ARGUMENTS[sparse_ops.SparseNetwork] = lambda draw: sparse_layers(draw, many=True)


@arguments(image.Conv2d)
def _(draw, dtype):
    x, channels = values(draw, draw(IMAGES), dtype), draw(SIZES)
    weight = values(draw, (channels, x.shape[1], draw(SIZES), draw(SIZES)), dtype)
    bias = values(draw, (channels,), dtype) if draw(st.booleans()) else None
    return [x, weight, bias, draw(SIZES), draw(st.integers(0, 2))]


@arguments(image.MaxPool2d, image.AvgPool2d)
def _(draw, dtype):
    return [values(draw, draw(IMAGES), dtype), draw(SIZES), draw(SIZES)]


@arguments(attention.ScaledDotProductAttention)
def _(draw, dtype):
    batch, heads, queries, earlier, width, width_v = (draw(SIZES) for _ in range(6))
    keys = queries + earlier - 1
    shapes = (batch, heads, queries, width), (batch, heads, keys, width), (batch, heads, keys, width_v)
    return [*(values(draw, s, dtype) for s in shapes), draw(st.booleans())]


@arguments(attention.SelfAttention)
def _(draw, dtype):
    heads = draw(SIZES)
    return [values(draw, (draw(SIZES), draw(SIZES), 3 * heads * draw(SIZES)), dtype), heads]


@arguments(decoding.DecoderStep)
def _(draw, dtype):
    shared, group, depth, batch, past, wide, layers, more = (draw(SIZES) for _ in range(8))
    heads, dtype, rng = shared * group, np.dtype(np.float32), np.random.default_rng(draw(SEEDS))
    width, rows = heads * depth, (heads + 2 * shared) * depth
    sizes = (width,), (width,), (rows, width), (rows,), (width, width), (width,)
    sizes += (width,), (width,), (wide, width), (wide,), (width, wide), (width,)
    blocks = tuple(BlockWeights(*(values(draw, s, dtype) for s in sizes)) for _ in range(layers))
    ends = (past + 1, width), (width,), (width,), (batch + more, width)
    weights = DecoderWeights(blocks, *(values(draw, s, dtype) for s in ends))
    caches = [values(draw, (layers, batch, shared, past + 2, depth), dtype) for _ in range(2)]
    tokens, ids = values(draw, (batch + more, width), dtype), rng.permutation(batch + more)[:batch, None]
    return [tokens, ids, weights, *caches, heads, past, np.zeros(batch, np.int64), 1e-2]


@arguments(normalization.LayerNorm)
def _(draw, dtype):
    width = draw(st.integers(2, 4))
    batch = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    return [*(values(draw, s, dtype) for s in ((*batch, width), (width,), (width,))), 1e-2]


@arguments(normalization.FrozenBatchNorm2d)
def _(draw, dtype):
    x = values(draw, draw(IMAGES), dtype)
    weight, bias, mean, var = (values(draw, x.shape[1:2], dtype, positive=True) for _ in range(4))
    return [x, weight, bias, 1e-2, (mean, var)]


@arguments(normalization.BatchNorm2d)
def _(draw, dtype):
    x = values(draw, draw(IMAGES), dtype)
    weight, bias, mean, var = (values(draw, x.shape[1:2], dtype, positive=True) for _ in range(4))
    return [x, weight, bias, 1e-2, (mean, var, 0.1)]


@arguments(reduction.Sum, reduction.Mean, reduction.Max)
def _(draw, dtype):
    x = values(draw, draw(VECTORS), dtype)
    axis = draw(st.none() | st.integers(-x.ndim, x.ndim - 1) | hnp.valid_tuple_axes(x.ndim, min_size=1))
    return [x, axis, draw(st.booleans())]


@arguments(shape.Reshape)
def _(draw, dtype):
    x = values(draw, (draw(SIZES), 6, draw(SIZES)), dtype)
    return [x, draw(st.sampled_from([(-1,), (2, -1), (-1, 3, 2)]))]


@arguments(shape.Permute)
def _(draw, dtype):
    x = values(draw, draw(SHAPES), dtype)
    return [x, tuple(draw(st.permutations(range(x.ndim))))]


@arguments(shape.Concatenate)
def _(draw, dtype):
    return [values(draw, (draw(st.integers(0, 3)), 2), dtype) for _ in range(draw(SIZES))]


@arguments(shape.GetItem)
def _(draw, dtype):
    x = values(draw, (4, 3, 2), dtype)
    rows = np.random.default_rng(draw(SEEDS)).permutation(4)[: draw(SIZES)]  # no element twice: it would be read once
    columns = np.array([[2], [0]])
    some = [rows, (rows, slice(None, None, -2)), (..., columns, 1), (slice(None), [0, 2]), [3, 0], [1], [2, 0, 1]]
    basic = [1, (1, 2), (slice(1, 3), None, 0), ..., (), None, slice(0, 0), (-1, ..., slice(1))]
    return [x, draw(st.sampled_from(some + basic))]


@arguments(embedding.Embedding)
def _(draw, dtype):
    weight, rng = values(draw, (3, draw(SIZES)), dtype), np.random.default_rng(draw(SEEDS))
    more = draw(st.booleans())  # either no row twice, or all of them
    ids = np.concatenate([rng.permutation(3), rng.integers(0, 3, 3)]).reshape(2, 3) if more else rng.permutation(3)[:2]
    return [weight, ids]
