"""Every operation's derivative, checked along random directions against central differences in float64."""

import operator
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.functions import all_functions, has_derivative
from tinytorch import Tensor, cat
from tinytorch.kernels import sparse as sparse_kernels
from tinytorch.nn.functional import cross_entropy, scaled_dot_product_attention
from tinytorch.ops import activation, attention, embedding, image, linear, normalization, sparse

Op = Callable[..., Tensor]
Case = Callable[[Callable], tuple[Op, list[np.ndarray]]]  # draw -> the function and the inputs it is derived for
CASES: dict[str, list[Case]] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Add a case to those of the Function called `name`."""
    return lambda make: CASES.setdefault(name, []).append(make) or make


SIZES = st.integers(1, 4)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4) | st.just((0, 3))
VECTORS = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
IMAGE_SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(4, 7), st.integers(4, 7))
LAYOUTS = ["C", "Fortran", "every second", "reversed", "offset"]


def rng_of(draw: Callable) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def lay_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same elements, at other places of memory."""
    if x.ndim == 0 or layout == "C":
        return x
    if layout == "Fortran":
        return np.asfortranarray(x)
    if layout == "reversed":
        return np.ascontiguousarray(x[::-1, ...])[::-1, ...]
    step, start = (2, 0) if layout == "every second" else (1, 1)
    memory = np.full((*x.shape[:-1], step * x.shape[-1] + start), np.nan)
    view = memory[..., start::step]
    view[...] = x
    return view


def values(draw: Callable, shape: tuple[int, ...], positive: bool = False) -> np.ndarray:
    x = rng_of(draw).standard_normal(shape)
    return lay_out(np.asarray(np.exp(0.5 * x) if positive else x), draw(st.sampled_from(LAYOUTS)))


def distinct(draw: Callable, shape: tuple[int, ...]) -> np.ndarray:
    """No two elements, and no element and 0, closer than 0.05: far from the kinks of max and relu."""
    n = int(np.prod(shape))
    x = (rng_of(draw).permutation(n) - n // 2 + 0.5) * 0.1
    return lay_out(x.reshape(shape), draw(st.sampled_from(LAYOUTS)))


def two_shapes(draw: Callable) -> tuple[tuple[int, ...], ...]:
    return draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3)).input_shapes


def axis_and_keepdims(draw: Callable, ndim: int) -> tuple[int | tuple[int, ...] | None, bool]:
    one = st.integers(-ndim, ndim - 1) if ndim else st.none()
    several = hnp.valid_tuple_axes(ndim, min_size=1) if ndim else st.none()
    return draw(st.none() | one | several), draw(st.booleans())


# The cases

for _name, _op in {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul}.items():
    case(_name)(lambda draw, op=_op: (op, [values(draw, shape) for shape in two_shapes(draw)]))

for _name, _op, _positive in (
    ("Add", lambda x: 2.5 + x, False),
    ("Neg", lambda x: -x, False),
    ("Exp", lambda x: x.exp(), False),
    ("Tanh", lambda x: x.tanh(), False),
    ("GELU", lambda x: x.gelu(), False),
    ("Log", lambda x: x.log(), True),
    ("Div", lambda x: 2.5 / x, True),
    ("Div", lambda x: x / 2.5, False),
    ("Mul", lambda x: x * x, False),
):
    case(_name)(lambda draw, op=_op, positive=_positive: (op, [values(draw, draw(SHAPES), positive)]))


case("ReLU")(lambda draw: (lambda x: x.relu(), [distinct(draw, draw(SHAPES))]))
case("Softmax")(lambda draw: (lambda x: x.softmax(), [values(draw, draw(VECTORS))]))


@case("Div")
def _(draw):
    a, b = two_shapes(draw)
    return lambda x, y: x / y, [values(draw, a), values(draw, b, positive=True)]


@case("Maximum")
def _(draw):
    a, b = two_shapes(draw)
    return lambda x, y: x.maximum(y), [distinct(draw, a), np.asarray(distinct(draw, b) + 0.03)]


@case("Pow")
def _(draw):
    positive = draw(st.booleans())
    exponent = draw(st.sampled_from([0, 1, 2, 3, -2, -0.5, 0.5, 3.7][: 8 if positive else 4]))
    return lambda x: x**exponent, [values(draw, draw(SHAPES), positive)]


@case("Dropout")
def _(draw):
    p, seed = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.integers(0, 99))
    op = lambda x: activation.Dropout.apply(x, p, np.random.default_rng(seed))  # noqa: E731
    return op, [values(draw, draw(SHAPES))]


for _name, _op, _make in (("Sum", Tensor.sum, values), ("Mean", Tensor.mean, values), ("Max", Tensor.max, distinct)):

    @case(_name)
    def _(draw, op=_op, make=_make):
        x = make(draw, draw(SHAPES if op is Tensor.sum else st.just(()) | VECTORS))
        axis, keepdims = axis_and_keepdims(draw, x.ndim)
        return lambda x: op(x, axis, keepdims), [x]


@case("Reshape")
def _(draw):
    x = values(draw, (draw(SIZES), 6, draw(SIZES)))
    shape = draw(st.sampled_from([(-1,), (2, -1), (-1, 3, 2), (x.shape[0], 6 * x.shape[2])]))
    return lambda x: x.reshape(shape), [x]


@case("Permute")
def _(draw):
    x = values(draw, draw(SHAPES))
    axes = tuple(a - x.ndim * draw(st.booleans()) for a in draw(st.permutations(range(x.ndim))))
    return lambda x: x.permute(axes), [x]


@case("GetItem")
def _(draw):
    x = values(draw, draw(VECTORS))
    index = draw(hnp.basic_indices(x.shape, allow_newaxis=True))
    return lambda x: x[index], [x]


@case("GetItem")
def _(draw):
    x = values(draw, (draw(SIZES), draw(SIZES), 3))
    mask = rng_of(draw).random(x.shape[:2]) < 0.5
    rows = rng_of(draw).integers(-len(x), len(x), draw(hnp.array_shapes(max_dims=2, max_side=5)))
    index = draw(st.sampled_from([rows, (rows, slice(None, None, -2)), (slice(None), [0, 0]), (..., rows % 3), mask]))
    return lambda x: x[index], [x]


@case("Concatenate")
def _(draw):
    axis, sizes = draw(st.integers(-3, 2)), draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    shapes = [[2, 3, 1] for _ in sizes]
    for shape, size in zip(shapes, sizes, strict=True):
        shape[axis] = size
    return lambda *xs: cat(xs, axis=axis), [values(draw, tuple(shape)) for shape in shapes]


@case("MatMul")
def _(draw):
    rule = np.matmul.signature  # with and without batch axes, vectors too
    shapes = draw(hnp.mutually_broadcastable_shapes(signature=rule, max_dims=2, min_side=1, max_side=3))
    return lambda a, b: a @ b, [values(draw, shape) for shape in shapes.input_shapes]


@case("Linear")
def _(draw):
    n_in, n_out = draw(SIZES), draw(SIZES)
    batch = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    bias = [values(draw, (n_out,))] if draw(st.booleans()) else []
    op = lambda x, w, b=None: linear.Linear.apply(x, w, b)  # noqa: E731
    return op, [values(draw, (*batch, n_in)), values(draw, (n_out, n_in)), *bias]


@case("Conv2d")
def _(draw):
    stride, padding, channels = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(SIZES)
    x = values(draw, draw(IMAGE_SHAPES))
    weight = values(draw, (channels, x.shape[1], draw(SIZES), draw(SIZES)))
    bias = [values(draw, (channels,))] if draw(st.booleans()) else []
    return lambda x, w, b=None: image.Conv2d.apply(x, w, b, stride, padding), [x, weight, *bias]


@case("SparseLayer")
def _(draw):
    """It computes in float32, and is linear: a large step is as exact as a small one."""
    kernel, stride, padding, outs = draw(SIZES), draw(SIZES), draw(st.integers(0, 2)), draw(SIZES)
    x = values(draw, draw(IMAGE_SHAPES)).astype(np.float32)
    x = x if draw(st.booleans()) else x[:, 0, 0]
    weight = rng_of(draw).standard_normal((outs, x.shape[1] if x.ndim == 2 else x.shape[1] * kernel**2))
    weight[rng_of(draw).random(weight.shape) < 0.5] = 0
    rows = sparse_kernels.Rows.from_dense(weight)
    bias = rng_of(draw).standard_normal(outs).astype(np.float32) if draw(st.booleans()) else None
    convolution = sparse_kernels.Convolution(rows, kernel, bias, stride, padding)
    layer = sparse_kernels.Linear(rows, bias) if x.ndim == 2 else convolution
    network = sparse_kernels.Network([layer], x.shape[1:])
    return lambda x: sparse.SparseLayer.apply(x, network.described, network), [x]


for _op, _make in ((image.MaxPool2d, distinct), (image.AvgPool2d, values)):

    @case(_op.__name__)
    def _(draw, op=_op, make=_make):
        kernel, stride = draw(SIZES), draw(SIZES)
        return lambda x: op.apply(x, kernel, stride), [make(draw, draw(IMAGE_SHAPES))]


@case("LayerNorm")
def _(draw):
    shape = (*draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)), draw(st.integers(2, 5)))
    op = lambda x, w, b: normalization.LayerNorm.apply(x, w, b, 1e-2)  # noqa: E731
    return op, [values(draw, s) for s in (shape, shape[-1:], shape[-1:])]


@case("BatchNorm2d")
def _(draw):
    shape = draw(IMAGE_SHAPES)
    running = np.zeros(shape[1]), np.ones(shape[1]), 0.1
    op = lambda x, w, b: normalization.BatchNorm2d.apply(x, w, b, 1e-2, running)  # noqa: E731
    return op, [values(draw, s) for s in (shape, shape[1:2], shape[1:2])]


@case("FrozenBatchNorm2d")
def _(draw):
    shape = draw(IMAGE_SHAPES)
    running = values(draw, shape[1:2]), values(draw, shape[1:2], positive=True)
    op = lambda x, w, b: normalization.FrozenBatchNorm2d.apply(x, w, b, 1e-2, running)  # noqa: E731
    return op, [values(draw, s) for s in (shape, shape[1:2], shape[1:2])]


@case("Embedding")
def _(draw):
    weight = values(draw, (draw(SIZES), draw(SIZES)))
    ids = rng_of(draw).integers(0, len(weight), draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0)))
    return lambda w: embedding.Embedding.apply(w, ids), [weight]


@case("CrossEntropy")
def _(draw):
    logits = values(draw, draw(VECTORS))
    targets = rng_of(draw).integers(0, logits.shape[-1], logits.shape[:-1])
    return lambda x: cross_entropy(x, targets), [logits]


@case("ScaledDotProductAttention")
def _(draw):
    batch, heads, queries, earlier, width, width_v = (draw(SIZES) for _ in range(6))
    is_causal, keys = draw(st.booleans()), queries + earlier - 1
    shapes = (batch, heads, queries, width), (batch, heads, keys, width), (batch, heads, keys, width_v)
    op = lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal)  # noqa: E731
    return op, [values(draw, shape) for shape in shapes]


@case("SelfAttention")
def _(draw):
    heads = draw(SIZES)
    qkv = values(draw, (draw(SIZES), draw(SIZES), 3 * heads * draw(SIZES)))
    return lambda x: attention.SelfAttention.apply(x, heads), [qkv]


def test_every_operation_has_a_case_here():
    assert {f.__name__ for f in all_functions() if has_derivative(f)} == CASES.keys()


def gradients(op: Op, inputs: list[np.ndarray], needed: list[bool], weights: np.ndarray) -> list[np.ndarray | None]:
    tensors = [Tensor(x, requires_grad=need) for x, need in zip(inputs, needed, strict=True)]
    out = op(*tensors)
    if out.requires_grad:
        out.backward(weights)
    return [t.grad.data if t.grad is not None else None for t in tensors]


TABLE = [(f"{f.__name__}-{i}", c) for f in all_functions() for i, c in enumerate(CASES.get(f.__name__, []))]


@pytest.mark.parametrize("make", [c for _, c in TABLE], ids=[name for name, _ in TABLE])
@settings(max_examples=20)
@given(data=st.data())
def test_backward_is_the_derivative(make, data):
    """Along any direction; it changes neither the inputs nor the gradient it is given, nor depends on who else asks."""
    op, inputs = make(data.draw)
    rng, before = rng_of(data.draw), [x.copy() for x in inputs]
    for x in inputs:
        x.flags.writeable = False
    out = op(*map(Tensor, inputs)).data
    weights = np.asarray(rng.standard_normal(out.shape))
    weights.flags.writeable = False

    found = gradients(op, inputs, [True] * len(inputs), weights)
    for i, x in enumerate(inputs):
        alone = gradients(op, inputs, [j == i for j in range(len(inputs))], weights)
        assert [g is not None for g in alone] == [j == i for j in range(len(inputs))]
        np.testing.assert_allclose(alone[i], found[i], rtol=1e-12, atol=1e-12)
        assert found[i].shape == x.shape
        np.testing.assert_array_equal(x, before[i])

    h, tolerance = (1e-5, 1e-6) if out.dtype == np.float64 else (0.5, 1e-5)
    directions = [rng.standard_normal(x.shape) for x in inputs]
    ahead, behind = (
        op(*(Tensor((x + sign * h * d).astype(x.dtype)) for x, d in zip(inputs, directions, strict=True))).data
        for sign in (1, -1)
    )
    numeric = float(((ahead - behind) * weights).sum()) / (2 * h)
    terms = [d * g for d, g in zip(directions, found, strict=True)]
    size = sum(float(np.abs(t).sum()) for t in terms)
    assert abs(numeric - sum(float(t.sum()) for t in terms)) <= tolerance * (1 + size)
