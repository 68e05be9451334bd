"""The same lambda, run in PyTorch and here: equal results and equal gradients."""

from types import SimpleNamespace

import numpy as np
import pytest

import tinytorch
from tinytorch import Tensor, nn, optim
from tinytorch.nn import functional
from tinytorch.optim import clip_grad_norm_

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch==2.13.0")
tf = torch.nn.functional

RNG_SEED = 0
IDS = np.array([[0, 2, 2], [4, 0, 1]])
OURS = SimpleNamespace(
    cat=tinytorch.cat,
    maximum=Tensor.maximum,
    relu=Tensor.relu,
    gelu=Tensor.gelu,
    softmax=Tensor.softmax,
    amax=lambda x, axis, keepdims: x.max(axis, keepdims),
    cross_entropy=functional.cross_entropy,
    attention=functional.scaled_dot_product_attention,
    ints=np.asarray,
)
THEIRS = SimpleNamespace(
    cat=torch.cat,
    maximum=torch.maximum,
    relu=torch.relu,
    gelu=lambda x: tf.gelu(x, approximate="tanh"),
    softmax=lambda x: torch.softmax(x, -1),
    amax=lambda x, axis, keepdims: torch.amax(x, axis if axis is not None else (), keepdims),
    cross_entropy=tf.cross_entropy,
    attention=lambda q, k, v, is_causal: tf.scaled_dot_product_attention(q, k, v, is_causal=is_causal),
    ints=lambda x: torch.from_numpy(np.ascontiguousarray(x)),
)

# (name, lambda of the library and the inputs, shapes of the inputs)
OPERATIONS = [
    ("add", lambda lib, a, b: a + b, [(3, 4), (4,)]),
    ("add a number", lambda lib, a: 2 + a + 0.5, [(3, 4)]),
    ("subtract", lambda lib, a, b: a - b, [(2, 1, 4), (3, 1)]),
    ("subtract from a number", lambda lib, a: 1 - a, [(3,)]),
    ("multiply", lambda lib, a, b: a * b, [(2, 3, 4), (1, 1)]),
    ("multiply a scalar", lambda lib, a, b: a * b, [(2, 3), ()]),
    ("divide", lambda lib, a, b: a / (b * b + 1), [(3, 4), (3, 1)]),
    ("divide a number", lambda lib, a: 2 / (a * a + 1), [(3, 4)]),
    ("negate", lambda lib, a: -a, [(3, 4)]),
    ("cube", lambda lib, a: a**3, [(3, 4)]),
    ("square root", lambda lib, a: (a * a + 0.1) ** 0.5, [(3, 4)]),
    ("power 0", lambda lib, a: a**0 * a, [(3,)]),
    ("exp", lambda lib, a: a.exp(), [(3, 4)]),
    ("log", lambda lib, a: (a * a + 0.1).log(), [(3, 4)]),
    ("tanh", lambda lib, a: a.tanh(), [(3, 4)]),
    ("relu", lambda lib, a: lib.relu(a), [(3, 4)]),
    ("relu at 0", lambda lib, a: lib.relu(a * 0), [(3, 4)]),
    ("gelu", lambda lib, a: lib.gelu(a * 4), [(50, 40)]),
    ("softmax", lambda lib, a: lib.softmax(a * 30), [(2, 3, 4)]),
    ("maximum", lambda lib, a, b: lib.maximum(a, b), [(3, 4), (4,)]),
    ("maximum of equals", lambda lib, a: lib.maximum(a, a * 1), [(3, 4)]),
    ("max of all", lambda lib, a: lib.amax(a, None, False), [(3, 4)]),
    ("max over two axes", lambda lib, a: lib.amax(a, (0, -1), True), [(3, 4, 2)]),
    ("max of equals", lambda lib, a: lib.amax(lib.cat([a, a, a * 1], 1), 1, False), [(6, 4)]),
    ("sum of all", lambda lib, a: a.sum(), [(3, 4)]),
    ("sum", lambda lib, a: a.sum(axis=1), [(3, 4, 2)]),
    ("sum over two axes", lambda lib, a: a.sum(axis=(0, -1), keepdims=True), [(3, 4, 2)]),
    ("mean of all", lambda lib, a: a.mean(), [(3, 4)]),
    ("mean", lambda lib, a: a.mean(axis=(0, 2)), [(3, 4, 2)]),
    ("mean keepdims", lambda lib, a: a - a.mean(axis=-1, keepdims=True), [(3, 4)]),
    ("reshape", lambda lib, a: a.reshape(4, -1) * a.reshape((4, 3)), [(3, 4)]),
    ("flatten", lambda lib, a: a.flatten(1), [(2, 3, 4)]),
    ("permute", lambda lib, a: a.permute(2, 0, -2), [(2, 3, 4)]),
    ("transpose", lambda lib, a: a.transpose(-1, 0), [(2, 3, 4)]),
    ("T", lambda lib, a: a.T @ a, [(3, 4)]),
    ("row", lambda lib, a: a[1], [(3, 4)]),
    ("slices", lambda lib, a: a[1:, None, ::2], [(3, 4)]),
    ("ellipsis", lambda lib, a: a[..., -1], [(2, 3, 4)]),
    ("repeated rows", lambda lib, a: a[lib.ints(IDS)], [(5, 4)]),
    ("pairs", lambda lib, a: a[lib.ints(IDS), lib.ints(IDS[:, ::-1])], [(5, 5)]),
    ("mask", lambda lib, a: a[a > 0] if lib is THEIRS else a[a.data > 0], [(3, 4)]),
    ("cat", lambda lib, a, b: lib.cat([a, b, a], -1), [(3, 4), (3, 2)]),
    ("a @ b", lambda lib, a, b: a @ b, [(3, 4), (4, 5)]),
    ("vector @ vector", lambda lib, a, b: a @ b, [(4,), (4,)]),
    ("vector @ matrix", lambda lib, a, b: a @ b, [(4,), (4, 5)]),
    ("matrix @ vector", lambda lib, a, b: a @ b, [(3, 4), (4,)]),
    ("vector @ matrices", lambda lib, a, b: a @ b, [(4,), (2, 4, 5)]),
    ("matrices @ vector", lambda lib, a, b: a @ b, [(2, 3, 4), (4,)]),
    ("broadcast matrices", lambda lib, a, b: a @ b, [(2, 1, 3, 4), (5, 4, 2)]),
    ("a tensor used twice", lambda lib, a: a * a + a, [(3, 4)]),
    ("cross-entropy", lambda lib, a: lib.cross_entropy(a * 9, lib.ints(np.array([1, 3, 0]))), [(3, 4)]),
    ("attention", lambda lib, q, k, v: lib.attention(q, k, v, False), [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7)]),
    ("causal attention", lambda lib, q, k, v: lib.attention(q, k, v, True), [(2, 3, 4, 5)] * 3),
]


def rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


def draws(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    generator = rng()
    return [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]


def theirs(x: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(x.copy()).requires_grad_()


def close(ours: np.ndarray, other: "torch.Tensor", what: str = "", rtol: float = 2e-5, atol: float = 2e-6) -> None:
    other = other.detach().numpy()
    assert ours.shape == other.shape, what
    assert ours.dtype == other.dtype, what
    np.testing.assert_allclose(ours, other, rtol=rtol, atol=atol * max(1.0, np.abs(other).max(initial=0)), err_msg=what)


@pytest.mark.parametrize(("op", "shapes"), [c[1:] for c in OPERATIONS], ids=[c[0] for c in OPERATIONS])
def test_operations_equal_torch(op, shapes):
    arrays = draws(*shapes)
    xs, ys = [Tensor(a, requires_grad=True) for a in arrays], [theirs(a) for a in arrays]
    out, expected = op(OURS, *xs), op(THEIRS, *ys)
    close(out.data, expected, "result")
    weights = rng().standard_normal(out.shape, dtype=np.float32)
    out.backward(np.asarray(weights))
    expected.backward(torch.from_numpy(np.asarray(weights)))
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        close(x.grad.data, y.grad, f"gradient of input {i}")


def images(n: int, c: int, h: int, w: int) -> np.ndarray:
    return draws((n, c, h, w))[0]


CONVS = [
    (1, 1, 0, 5, 5),
    (3, 1, 1, 8, 8),
    (3, 2, 1, 7, 9),
    (5, 3, 2, 9, 6),
    (2, 3, 0, 8, 7),
    (4, 4, 3, 6, 6),
    (3, 5, 0, 3, 3),
]
POOLS = [(2, 2, 8, 8), (2, 2, 7, 5), (3, 1, 6, 7), (3, 2, 8, 9), (2, 3, 9, 7), (1, 2, 5, 5), (4, 4, 4, 4)]
LAYERS = [
    *[
        (
            f"Conv2d kernel {k} stride {s} padding {p} on {h}x{w}",
            lambda k=k, s=s, p=p: nn.Conv2d(3, 4, k, s, p, bias=s > 1, rng=rng()),
            lambda k=k, s=s, p=p: torch.nn.Conv2d(3, 4, k, s, p, bias=s > 1),
            images(2, 3, h, w),
        )
        for k, s, p, h, w in CONVS
    ],
    *[
        (
            f"{name} kernel {k} stride {s} on {h}x{w}",
            lambda k=k, s=s, name=name: getattr(nn, name)(k, s),
            lambda k=k, s=s, name=name: getattr(torch.nn, name)(k, s),
            images(2, 3, h, w),
        )
        for name in ("MaxPool2d", "AvgPool2d")
        for k, s, h, w in POOLS
    ],
    ("MaxPool2d of equals", lambda: nn.MaxPool2d(2), lambda: torch.nn.MaxPool2d(2), np.zeros((1, 1, 4, 4), np.float32)),
    ("Linear", lambda: nn.Linear(4, 5, rng=rng()), lambda: torch.nn.Linear(4, 5), draws((2, 3, 4))[0]),
    (
        "Linear without bias",
        lambda: nn.Linear(4, 5, bias=False, rng=rng()),
        lambda: torch.nn.Linear(4, 5, bias=False),
        draws((4,))[0],
    ),
    ("LayerNorm", lambda: nn.LayerNorm(6), lambda: torch.nn.LayerNorm(6), 5 + 3 * draws((2, 3, 6))[0]),
    ("BatchNorm2d", lambda: nn.BatchNorm2d(3), lambda: torch.nn.BatchNorm2d(3), 5 + 3 * images(4, 3, 5, 6)),
    ("Embedding", lambda: nn.Embedding(5, 3, rng=rng()), lambda: torch.nn.Embedding(5, 3), IDS),
    ("ReLU", lambda: nn.ReLU(), lambda: torch.nn.ReLU(), draws((3, 4))[0]),
    ("GELU", lambda: nn.GELU(), lambda: torch.nn.GELU(approximate="tanh"), draws((3, 4))[0]),
    ("Flatten", lambda: nn.Flatten(), lambda: torch.nn.Flatten(), images(2, 3, 2, 2)),
]


@pytest.mark.parametrize(("make", "make_theirs", "x"), [c[1:] for c in LAYERS], ids=[c[0] for c in LAYERS])
def test_layers_equal_torch(make, make_theirs, x):
    """In training twice (so that running statistics move), then in evaluation."""
    layer, other = make(), make_theirs()
    generator = rng()
    for parameter in layer.parameters():
        parameter.data[...] = generator.standard_normal(parameter.shape)
    names = other.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in layer.state_dict().items()}, strict=False)
    assert not [name for name in names.missing_keys + names.unexpected_keys if name != "num_batches_tracked"]
    for training in (True, True, False):
        layer.train(training)
        other.train(training)
        is_float = x.dtype.kind == "f"
        ours, y = (Tensor(x.copy(), requires_grad=True), theirs(x)) if is_float else (x, torch.from_numpy(x))
        x = x[::-1].copy()
        out, expected = layer(ours), other(y)
        close(out.data, expected, "result")
        weights = generator.standard_normal(out.shape, dtype=np.float32)
        out.backward(weights)
        expected.backward(torch.from_numpy(weights))
        if is_float:
            close(ours.grad.data, y.grad, "gradient of the input", atol=1e-5)
        for (name, p), q in zip(layer.named_parameters(), other.parameters(), strict=True):
            close(p.grad.data, q.grad, f"gradient of {name}", atol=1e-5)
        for name, array in layer.state_dict().items():
            close(array, other.state_dict()[name], name)


@pytest.mark.parametrize(
    ("make", "make_theirs"),
    [
        (lambda p: optim.SGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (
            lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
        ),
        (lambda p: optim.AdamW(p), lambda p: torch.optim.AdamW(p)),
        (
            lambda p: optim.AdamW(p, 0.1, (0.8, 0.9), 1e-3, 0.3),
            lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.9), 1e-3, 0.3),
        ),
        (lambda p: optim.AdamW(p, 0.1, weight_decay=0.0), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.0)),
    ],
    ids=["SGD", "SGD momentum", "SGD momentum and decay", "AdamW", "AdamW all arguments", "AdamW without decay"],
)
def test_optimizers_equal_torch_for_ten_clipped_steps(make, make_theirs):
    arrays = draws((3, 4), (4,), (2,))
    xs, ys = [Tensor(a.copy(), requires_grad=True) for a in arrays], [theirs(a) for a in arrays]
    optimizer, other = make(xs), make_theirs(ys)
    for step in range(10):
        for opt, (a, b, _) in ((optimizer, xs), (other, ys)):  # the third one never has a gradient
            opt.zero_grad()
            ((a * b + 0.1 * step) ** 2).sum().backward()
        norm = clip_grad_norm_(xs, 1.0)
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(ys, 1.0)), rel=1e-5)
        optimizer.step()
        other.step()
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        close(x.data, y, f"parameter {i}", rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(xs[2].data, arrays[2])
