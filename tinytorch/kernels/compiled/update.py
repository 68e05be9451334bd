"""One pass over a parameter, its gradient and its state: LLVM makes vectors of the loops as they stand."""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels import update as plain
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, fma, load_first, total
from tinytorch.kernels.compiled.threads import parallel_for

_BLOCK = 1 << 14  # numbers: the least that is worth a thread; of each block one sum is made


@jit
def _sgd(p, grad, velocity, lr, momentum, decay, start, stop):
    part = slice(start * _BLOCK, stop * _BLOCK)
    p, grad, velocity = p[part], grad[part], velocity[part]
    lr, momentum, decay = np.float32(lr), np.float32(momentum), np.float32(decay)
    for i in range(p.size):
        velocity[i] = momentum * velocity[i] + (grad[i] + decay * p[i])
        p[i] -= lr * velocity[i]


@jit
def _adamw(p, grad, mean, square, beta1, beta2, decay, step, correction, eps, start, stop):
    part = slice(start * _BLOCK, stop * _BLOCK)
    p, grad, mean, square = p[part], grad[part], mean[part], square[part]
    new1, new2, decay = np.float32(1 - beta1), np.float32(1 - beta2), np.float32(decay)
    step, correction, eps = np.float32(step), np.float32(correction), np.float32(eps)
    for i in range(p.size):
        g = grad[i]
        m = mean[i] + new1 * (g - mean[i])
        s = square[i] + new2 * (g * g - square[i])
        mean[i], square[i] = m, s
        p[i] = p[i] * decay - step * m / (np.float32(math.sqrt(s * correction)) + eps)


@jit
def _square_sums(x, sums, start, stop):
    for n in range(start, stop):
        added, end = broadcast(np.float32(0)), min((n + 1) * _BLOCK, x.size)
        for i in range(n * _BLOCK, end, LANES):
            v = load_first(x, i, end - i)
            added = fma(v, v, added)
        sums[n] = total(added)


def sgd_update(
    p: np.ndarray, grad: np.ndarray, velocity: np.ndarray, lr: float, momentum: float, weight_decay: float
) -> None:
    """Read and write each number once."""
    if not _in_one_piece(p, velocity):
        plain.sgd_update.version("numpy")(p, grad, velocity, lr, momentum, weight_decay)
        return
    arrays = p.ravel(), grad.ravel(), velocity.ravel()
    parallel_for(_sgd, -(-p.size // _BLOCK), *arrays, float(lr), float(momentum), float(weight_decay))


def adamw_update(
    p: np.ndarray,
    grad: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    steps: int,
) -> None:
    """Read and write each number once."""
    if not _in_one_piece(p, mean, square):
        plain.adamw_update.version("numpy")(p, grad, mean, square, lr, betas, eps, weight_decay, steps)
        return
    arrays = p.ravel(), grad.ravel(), mean.ravel(), square.ravel()
    beta1, beta2 = betas
    decay, step, correction = 1 - lr * weight_decay, lr / (1 - beta1**steps), 1 / (1 - beta2**steps)
    numbers = float(beta1), float(beta2), float(decay), float(step), float(correction), float(eps)
    parallel_for(_adamw, -(-p.size // _BLOCK), *arrays, *numbers)


def square_sum(x: np.ndarray) -> float:
    """Sum blocks in float32, and the blocks' sums in float64."""
    sums = np.empty(-(-x.size // _BLOCK))
    parallel_for(_square_sums, sums.size, x.ravel(), sums)
    return float(sums.sum())


def _in_one_piece(*arrays: np.ndarray) -> bool:
    """Tell whether flat views of arrays are no copies, so that a change of them is seen."""
    return all(a.flags.c_contiguous for a in arrays)
