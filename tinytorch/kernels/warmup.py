"""Compile every kernel before it is needed, so that nothing waits for the compiler later on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from tinytorch.kernels import conv, matmul, pool
from tinytorch.kernels.backend import backend, compiled


def calls() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield kernels with arguments, small ones, so that each piece of code is compiled that the book's models use."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    yield matmul.matmul_numba, (array(8, 8), array(8, 8))
    yield matmul.matmul_simd, (array(64, 8), array(8, 8))
    for rows in (1, 8, 64):  # each has a way of its own
        x, weight = array(rows, 64), array(48, 64)
        yield matmul.linear, (x, weight, array(48))
        yield matmul.matmul, (x, weight.T)
        yield matmul.matmul, (x, array(64, 48))
    yield matmul.matmul, (array(64, 8).T, array(64, 8))
    yield matmul.matmul, (array(2, 8, 8), array(2, 8, 8))

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


def warmup() -> int:
    """Run each compiled kernel once; return how many functions had to be compiled, the others being on disk.

    A bar shows the progress, if there is any to be seen: where all is compiled, this takes a second or two.

    Raises
    ------
    ModuleNotFoundError
        If Numba is not installed.
    """
    with backend("numba"):
        jit = compiled("jit")
        before: int = jit.compiled_functions()
        todo = list(calls())
        file = sys.stderr if sys.stderr.isatty() else sys.stdout  # in a notebook stderr is for what went wrong
        with tqdm(todo, desc="compiling kernels", unit="kernel", leave=False, delay=3, mininterval=1, file=file) as bar:
            for function, arguments in bar:
                function(*arguments)
        return jit.compiled_functions() - before
