"""The kernels that are watched: each on one fixed problem, beside the frozen baseline that does the same mathematics.

Problems are small enough for the baseline to take about half a millisecond: on a core that programs share, most turns
are then over before another program's comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from tests.regression import frozen
from tinytorch.kernels import activation, attention, conv, decoding, int8, matmul, normalization, softmax, sparse


class Case(NamedTuple):
    """Two functions without arguments that return the same numbers: the kernel under test, and the frozen one."""

    ours: Callable[[], np.ndarray]
    frozen: Callable[[], np.ndarray]


def _frozen(function: Callable[..., object], *arguments: object, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    """Return what calls a baseline that writes to its last argument."""
    out = np.empty(shape, np.float32)

    def call() -> np.ndarray:
        function(*arguments, out)
        return out

    return call


def _matmul(rng: np.random.Generator) -> Case:
    a, b = _normal(rng, 128, 64), _normal(rng, 64, 64)
    return Case(partial(matmul.matmul, a, b), _frozen(frozen.matmul, a, b, shape=(128, 64)))


def _conv(rng: np.random.Generator) -> Case:
    x, weight, bias = _normal(rng, 1, 16, 14, 14), _normal(rng, 16, 16, 3, 3), _normal(rng, 16)
    ours = partial(conv.conv2d, x, weight, bias, 1, 1)
    return Case(ours, _frozen(frozen.conv, x, weight, bias, 1, shape=(1, 16, 14, 14)))


def _attention(rng: np.random.Generator) -> Case:
    q, k, v = (_normal(rng, 2, 64, 32) for _ in range(3))
    heads = q[None], k[None], v[None]
    return Case(lambda: attention.attention(*heads, True)[0][0], _frozen(frozen.attention, q, k, v, shape=(2, 64, 32)))


def _int8_linear(rng: np.random.Generator) -> Case:
    codes = rng.integers(0, 256, (16, 128), dtype=np.uint8)
    weight = rng.integers(-127, 128, (256, 128), dtype=np.int8)
    bias, multiplier = rng.integers(-999, 1000, 256, dtype=np.int32), rng.random(256, np.float32) + np.float32(0.5)
    network = int8.Network([int8.Linear(weight, bias, multiplier, input_zero_point=3, floats=True)], (128,))
    out = _frozen(frozen.int8_linear, codes, np.float32(3), weight, bias, multiplier, shape=(16, 256))
    return Case(partial(network, codes), out)


def _sparse_linear(rng: np.random.Generator) -> Case:
    weight, x, bias = _normal(rng, 256, 256), _normal(rng, 64, 256), _normal(rng, 256)
    weight[rng.random(weight.shape) < 0.9] = 0
    rows = sparse.Rows.from_dense(weight)
    csr = rows.values, rows.indices, rows.indptr
    out = _frozen(frozen.sparse_linear, x, *csr, bias, shape=(64, 256))
    return Case(partial(sparse.Network([sparse.Linear(rows, bias)], (256,)), x), out)


def _decoder_step(rng: np.random.Generator) -> Case:
    """One token behind 63 others, 4 layers, 4 heads, 64 wide."""
    width, layers, heads, vocabulary, past = 64, 4, 4, 65, 63
    token, head = _normal(rng, width), _normal(rng, vocabulary, width)
    norms, biases = _normal(rng, layers + 1, 4, width), _normal(rng, layers, 9 * width)
    shapes = (3 * width, width), (width, width), (4 * width, width), (width, 4 * width)
    qkv, mix, up, down = (_normal(rng, layers, *shape) / np.float32(8) for shape in shapes)
    keys, values = (_normal(rng, layers, 1, heads, past + 1, width // heads) for _ in range(2))
    blocks = []
    for n in range(layers):
        first, mixed, widened, last = np.split(biases[n], [3 * width, 4 * width, 8 * width])
        before, behind = (norms[n, 0], norms[n, 1]), (norms[n, 2], norms[n, 3])
        blocks.append(
            decoding.BlockWeights(*before, qkv[n], first, mix[n], mixed, *behind, up[n], widened, down[n], last)
        )
    nowhere = np.zeros((past + 1, width), np.float32)  # positions add nothing
    weights = decoding.DecoderWeights(tuple(blocks), nowhere, norms[-1, 0], norms[-1, 1], head)
    first_id, starts = np.zeros(1, np.int64), np.zeros(1, np.int64)
    step = partial(decoding.decoder_step, token[None], first_id, weights, keys, values, heads, past, starts, 1e-5)
    caches = keys[:, 0].copy(), values[:, 0].copy()
    arrays = token, norms, biases, qkv, mix, up, down, head
    return Case(lambda: step()[0], _frozen(frozen.decoder_step, *arrays, *caches, past, shape=(vocabulary,)))


def _softmax(rng: np.random.Generator) -> Case:
    x = _normal(rng, 64, 512)
    return Case(partial(softmax.softmax, x), _frozen(frozen.softmax, x, shape=x.shape))


def _gelu(rng: np.random.Generator) -> Case:
    x = _normal(rng, 1 << 15)
    return Case(partial(activation.gelu, x), _frozen(frozen.gelu, x, shape=x.shape))


def _layer_norm(rng: np.random.Generator) -> Case:
    x, weight, bias = _normal(rng, 128, 256), _normal(rng, 256), _normal(rng, 256)
    ours = partial(normalization.layer_norm, x, weight, bias, 1e-5)
    return Case(lambda: ours()[0], _frozen(frozen.layer_norm, x, weight, bias, 1e-5, shape=x.shape))


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "matmul": _matmul,
    "conv": _conv,
    "attention": _attention,
    "int8_linear": _int8_linear,
    "sparse_linear": _sparse_linear,
    "decoder_step": _decoder_step,
    "softmax": _softmax,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
}
