"""What an optimizer does to one parameter, in place, and the norm of gradients.

A parameter, its gradient and its state are arrays of one shape, which may be any.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.backend import kernel


@kernel
def sgd_update(
    p: np.ndarray, grad: np.ndarray, velocity: np.ndarray, lr: float, momentum: float, weight_decay: float
) -> None:
    """v <- momentum v + (grad + weight_decay p), p <- p - lr v: the rule of `optim.SGD`; changes p and velocity."""
    velocity *= momentum
    velocity += grad
    if weight_decay:
        velocity += weight_decay * p
    p -= lr * velocity


@sgd_update.naive
def sgd_update_naive(
    p: np.ndarray, grad: np.ndarray, velocity: np.ndarray, lr: float, momentum: float, weight_decay: float
) -> None:
    """Work number by number."""
    for at in np.ndindex(p.shape):
        velocity[at] = momentum * float(velocity[at]) + float(grad[at]) + weight_decay * float(p[at])
        p[at] = float(p[at]) - lr * float(velocity[at])


@kernel
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
    """Take step number `steps`, from 1 on, of the rule of `optim.AdamW`; changes p, mean and square."""
    beta1, beta2 = betas
    mean += (1 - beta1) * (grad - mean)
    square += (1 - beta2) * (grad * grad - square)
    if weight_decay:
        p *= 1 - lr * weight_decay
    denominator = np.sqrt(square / (1 - beta2**steps))
    denominator += eps
    p -= (lr / (1 - beta1**steps)) * mean / denominator


@adamw_update.naive
def adamw_update_naive(
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
    """Work number by number."""
    beta1, beta2 = betas
    for at in np.ndindex(p.shape):
        g, m, s = float(grad[at]), float(mean[at]), float(square[at])
        m += (1 - beta1) * (g - m)
        s += (1 - beta2) * (g * g - s)
        mean[at], square[at] = m, s
        unbiased_mean, unbiased_square = m / (1 - beta1**steps), s / (1 - beta2**steps)
        p[at] = float(p[at]) * (1 - lr * weight_decay) - lr * unbiased_mean / (math.sqrt(unbiased_square) + eps)


@kernel
def square_sum(x: np.ndarray) -> float:
    """Return the sum of the squares of all elements."""
    return float(np.vdot(x, x))


@square_sum.naive
def square_sum_naive(x: np.ndarray) -> float:
    """Work number by number."""
    total = 0.0
    for at in np.ndindex(x.shape):
        total += float(x[at]) ** 2
    return total
