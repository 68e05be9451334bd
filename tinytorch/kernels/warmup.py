"""Compile every kernel before it is needed, so that nothing waits for the compiler later on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.kernels import (
    activation,
    attention,
    conv,
    decoding,
    dynamic,
    int8,
    int8_attention,
    matmul,
    normalization,
    pool,
    softmax,
    sparse,
    update,
)
from tinytorch.kernels.backend import backend, compiled
from tinytorch.kernels.progress import progress_bar
from tinytorch.kernels.together import alone, helped_by

Calls = Iterator[tuple[Any, tuple[Any, ...]]]


def array(*shape: int) -> np.ndarray:
    """Return numbers to compute with, no matter which."""
    return np.linspace(0.1, 1.0, math.prod(shape), dtype=np.float32).reshape(shape)


def calls() -> Calls:
    """Yield kernels with arguments, small ones, so that each piece of code is compiled that the book's models use."""
    yield from _decoding()  # what takes longest stands at both ends: two processes meet among the others
    yield from _products()
    yield from _images()
    yield from _fused()
    yield from _attention()
    yield from _zeros()
    yield from _integers()


def _products() -> Calls:
    yield matmul.matmul_numba, (array(8, 8), array(8, 8))
    yield matmul.matmul_simd, (array(64, 8), array(8, 8))
    for rows in (1, 8, 64):  # each has a way of its own
        x, weight = array(rows, 64), array(48, 64)
        yield matmul.linear, (x, weight, array(48))
        yield matmul.matmul, (x, weight.T)
        yield matmul.matmul, (x, array(64, 48))
    yield matmul.matmul, (array(64, 8).T, array(64, 8))
    yield matmul.matmul, (array(2, 8, 8), array(2, 8, 8))


def _images() -> Calls:
    for size, channels, out_channels in ((28, 1, 16), (14, 16, 32), (7, 32, 64)):  # the layers of the reference CNN
        x, weight = array(2, channels, size, size), array(out_channels, channels, 3, 3)
        grad = array(2, out_channels, size, size)
        yield conv.conv2d, (x, weight, array(out_channels), 1, 1)
        yield conv.conv2d_weight_grad, (grad, x, (3, 3), 1, 1)
        yield conv.conv2d_input_grad, (grad, weight, x.shape, 1, 1)
        yield conv.conv2d_bias_grad, (grad,)

    x, y = array(2, 16, 8, 8), array(2, 16, 4, 4)
    yield pool.max_pool2d, (x, 2, 2)
    yield pool.max_pool2d_grad, (y, x, y, 2, 2)
    yield pool.avg_pool2d, (x, 2, 2)
    yield pool.avg_pool2d_grad, (y, x.shape, 2, 2)


def _fused() -> Calls:
    x, numbers, targets = array(8, 40), array(40), np.zeros(8, np.int64)
    yield activation.relu, (x,)
    yield activation.relu_grad, (x, x)
    yield activation.gelu, (x,)
    yield activation.gelu_grad, (x, x)
    for function in (softmax.softmax, softmax.log_softmax):
        yield function, (x,)
    yield softmax.softmax_grad, (x, x)
    yield softmax.cross_entropy, (x, targets)
    yield softmax.cross_entropy_grad, (array(8), x, targets, array(8), array(8))
    yield normalization.layer_norm, (x, numbers, numbers, 1e-5)
    yield normalization.layer_norm_grad, (x, x, numbers, array(8), array(8))
    image, channels = array(2, 4, 4, 16).transpose(0, 3, 1, 2), array(16)
    yield normalization.batch_norm, (image, channels, channels, 1e-5)
    yield normalization.batch_norm_grad, (image, image, channels, channels, channels)
    yield normalization.batch_norm_weight_grad, (image, image, channels, channels)
    yield normalization.scale_shift, (image, channels, channels, True)
    yield update.sgd_update, (x, array(8, 40), array(8, 40), 0.1, 0.9, 0.1)
    yield update.adamw_update, (x, array(8, 40), array(8, 40), array(8, 40), 1e-3, (0.9, 0.99), 1e-8, 0.1, 1)
    yield update.square_sum, (x,)


def _attention() -> Calls:
    for queries, keys in ((40, 40), (1, 40), (3, 40)):  # many at once, and one or a few after others in a cache
        q, k = array(2, 2, queries, 32), array(2, 2, keys, 32)
        out, kept = array(2, 2, queries, 32), array(2, 2, queries)
        yield attention.attention, (q, k, k, True)
        yield attention.attention, (q, k, k, False)
        yield (
            attention.attention_grad,
            (q, q, k, k, out, kept, True, np.empty_like(q), np.empty_like(k), np.empty_like(k)),
        )


def _decoding() -> Calls:
    numbers, square = array(32), array(32, 32)
    block = decoding.BlockWeights(
        numbers, numbers, array(96, 32), array(96), square, numbers, numbers, numbers, square, numbers, square, numbers
    )
    weights, cache = decoding.DecoderWeights((block,), square, numbers, numbers, square), array(1, 1, 1, 4, 32)
    first = np.zeros(1, np.int64)
    yield decoding.decoder_step, (square, first, weights, cache, cache, 1, 2, first, 1e-5)
    # one piece of code is for floats and for what is kept of them, another one for codes as well
    weights = decoding.DecoderWeights((block,), square, numbers, numbers, _coded(32, 32))
    yield decoding.decoder_step, (square, first, weights, cache, cache, 1, 2, first, 1e-5)
    codes, scales = np.ones((1, 1, 3, 32), np.int8), array(1, 3)
    yield int8_attention.attend_codes, (array(1, 1, 32), codes, scales, codes, scales)


def _coded(outputs: int, inputs: int) -> decoding.Coded:
    codes, scale = np.ones((outputs, inputs), np.int8), array(outputs)
    return decoding.Coded(codes, scale, dynamic.Product(codes, scale))


def _integers() -> Calls:
    """A convolution and a linear layer: whatever the network, one piece of code runs it; and a layer that rounds."""
    numbers = np.zeros(16, np.int32), np.full(16, 0.01, np.float32)
    convolution = int8.Convolution(np.ones((16, 1, 3, 3), np.int8), *numbers, padding=1, pool=2)
    linear = int8.Linear(np.ones((16, 16 * 7 * 7), np.int8), *numbers, floats=True)
    yield int8.Network([convolution, linear], (1, 14, 14)), (array(1, 1, 14, 14),)
    yield dynamic.dynamic_linear, (array(8, 16), _coded(16, 16).product, array(16))


def _zeros() -> Calls:
    """A linear layer of a few weights: the same code runs every sparse network."""
    layer = sparse.Linear(sparse.Rows.from_dense(np.eye(8, dtype=np.float32)))
    yield sparse.Network([layer], (8,)), (array(1, 8),)


def warmup() -> int:
    """Run each compiled kernel once; return how many functions this process had to compile, the others being on disk.

    The first time, a second process compiles from the other end of the list. Processes that warm up at once wait for
    the first of them. A bar shows the progress, if there is any to be seen: where all is compiled, this takes a second
    or two.

    Raises
    ------
    ModuleNotFoundError
        If Numba is not installed.
    """
    with backend("numba"):
        jit = compiled("jit")
        before: int = jit.compiled_functions()
        ready: Path = jit.file_for_all("warm")
        if not ready.exists():
            with alone(ready.with_suffix(".lock")):
                if not ready.exists():
                    with helped_by(from_the_end):
                        _run(list(calls()))
                    with suppress(OSError):
                        ready.touch()
        _run(list(calls()))
        return jit.compiled_functions() - before


def from_the_end() -> None:
    """Do what `warmup` does, in the other direction and without help."""
    with backend("numba"):
        _run(list(calls())[::-1])


def _run(todo: list[tuple[Any, tuple[Any, ...]]]) -> None:
    with progress_bar(todo, desc="compiling kernels", unit="kernel", delay=3, mininterval=1) as bar:
        for function, arguments in bar:
            function(*arguments)
