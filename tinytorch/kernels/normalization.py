"""Layer norm and batch norm: normalization to mean 0 and variance 1, then a scale and a shift.

Both keep the mean and 1 / sqrt(var + eps) of each group for their gradients; the normalized numbers are cheaper to
compute again than to remember. Sources: Ba, Kiros & Hinton, "Layer normalization" (2016), section 3; Ioffe & Szegedy,
"Batch normalization" (2015), algorithm 1, and section 3 for the gradients, simplified.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.kernels.backend import kernel

Arrays3 = tuple[np.ndarray, np.ndarray, np.ndarray]


@kernel
def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> Arrays3:
    """Return (x - mean) / sqrt(var + eps) * weight + bias over the last axis, with mean and 1 / sqrt(var + eps).

    Parameters
    ----------
    x
        Shape (..., D).
    weight, bias
        Shape (D,).
    eps
        Keeps rows of equal numbers finite.

    Returns
    -------
    tuple of np.ndarray
        The result (..., D); mean and inverse standard deviation of each row: (...).
    """
    width = x.dtype.type(x.shape[-1])
    mean = np.vecdot(x, np.ones(x.shape[-1], x.dtype))[..., None] / width  # BLAS adds faster than NumPy
    y = x - mean
    var = np.vecdot(y, y)[..., None] / width
    inv_std = 1.0 / np.sqrt(var + x.dtype.type(eps))
    y *= inv_std
    y *= weight
    y += bias
    return y, mean[..., 0], inv_std[..., 0]


@layer_norm.naive
def layer_norm_naive(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> Arrays3:
    """Work number by number."""
    y, mean, inv_std = np.empty_like(x), np.empty(x.shape[:-1], x.dtype), np.empty(x.shape[:-1], x.dtype)
    for at in np.ndindex(mean.shape):
        row = x[at].tolist()
        m, var = _mean_and_variance(row)
        r = 1.0 / math.sqrt(var + eps)
        for i, v in enumerate(row):
            y[at][i] = (v - m) * r * float(weight[i]) + float(bias[i])
        mean[at], inv_std[at] = m, r
    return y, mean, inv_std


def _mean_and_variance(numbers: list[float]) -> tuple[float, float]:
    total, squares = 0.0, 0.0
    for v in numbers:
        total += v
    mean = total / len(numbers)
    for v in numbers:
        squares += (v - mean) * (v - mean)
    return mean, squares / len(numbers)


@kernel
def layer_norm_grad(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> Arrays3:
    """Gradients of `layer_norm` for x (..., D), weight (D,) and bias (D,), from its mean and inv_std.

    With n = (x - mean) inv_std and g = grad * weight, dx = inv_std (g - mean(g) - n mean(g n)): mean and variance
    depend on x too.
    """
    n = x - mean[..., None]
    n *= inv_std[..., None]
    width = x.dtype.type(weight.size)
    rows = grad.reshape(-1, weight.size)
    dw, db = np.einsum("ij,ij->j", rows, n.reshape(rows.shape)), np.ones(len(rows), x.dtype) @ rows
    g = grad * weight
    mean_g, mean_gn = np.vecdot(g, np.ones(weight.size, x.dtype)) / width, np.vecdot(g, n) / width
    n *= -mean_gn[..., None]
    n += g
    n -= mean_g[..., None]
    n *= inv_std[..., None]
    return n, dw, db


@layer_norm_grad.naive
def layer_norm_grad_naive(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> Arrays3:
    """Work number by number."""
    dx, width = np.empty_like(x), len(weight)
    dw, db = [0.0] * width, [0.0] * width
    for at in np.ndindex(mean.shape):
        m, r = float(mean[at]), float(inv_std[at])
        n = [(v - m) * r for v in x[at].tolist()]
        g = [a * b for a, b in zip(grad[at].tolist(), weight.tolist(), strict=True)]
        mean_g, mean_gn = 0.0, 0.0
        for i in range(width):
            mean_g += g[i] / width
            mean_gn += g[i] * n[i] / width
            dw[i] += float(grad[at][i]) * n[i]
            db[i] += float(grad[at][i])
        for i in range(width):
            dx[at][i] = r * (g[i] - mean_g - n[i] * mean_gn)
    return dx, np.array(dw, x.dtype), np.array(db, x.dtype)


@kernel
def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Normalize each channel over batch and pixels, with the batch's own mean and variance, then scale and shift it.

    Parameters
    ----------
    x
        Images (N, C, H, W).
    weight, bias
        Shape (C,).
    eps
        Keeps channels of equal numbers finite.

    Returns
    -------
    tuple of np.ndarray
        The result (N, C, H, W), and of each channel mean, variance (of all N H W numbers, not unbiased) and
        1 / sqrt(var + eps): (C,) each.
    """
    flat = x.reshape(*x.shape[:2], -1)  # (N, C, L)
    count = x.dtype.type(x.size // x.shape[1])
    mean = _channel_dot(flat, np.ones(flat.shape[-1], x.dtype)) / count
    y = flat - mean[:, None]
    var = _channel_dot(y, y) / count
    inv_std = 1.0 / np.sqrt(var + x.dtype.type(eps))
    y *= (weight * inv_std)[:, None]
    y += bias[:, None]
    return y.reshape(x.shape), mean, var, inv_std


def _channel_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum a * b of each channel, without an array for the products: (N, C, L) -> (C,)."""
    return np.asarray(np.vecdot(a, b).sum(axis=0))


@batch_norm.naive
def batch_norm_naive(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Work number by number."""
    y, (mean, var, inv_std) = np.empty_like(x), (np.empty(x.shape[1], x.dtype) for _ in range(3))
    for c in range(x.shape[1]):
        m, v = _mean_and_variance([float(x[n, c, i, j]) for n, i, j in np.ndindex(x[:, c].shape)])
        r = 1.0 / math.sqrt(v + eps)
        for n, i, j in np.ndindex(x[:, c].shape):
            y[n, c, i, j] = (float(x[n, c, i, j]) - m) * r * float(weight[c]) + float(bias[c])
        mean[c], var[c], inv_std[c] = m, v, r
    return y, mean, var, inv_std


@kernel
def batch_norm_grad(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> Arrays3:
    """Gradients of `batch_norm` for x (N, C, H, W), weight (C,) and bias (C,), from its mean and inv_std.

    As for `layer_norm_grad`; the weight is one number for a whole group here and moves out of its sums:
    dx = weight inv_std (grad - db / count - n dw / count).
    """
    dw, db = batch_norm_weight_grad(grad, x, mean, inv_std)
    count = x.dtype.type(x.size // x.shape[1])
    dx = x - mean[:, None, None]
    dx *= (inv_std * dw / -count)[:, None, None]
    dx += grad
    dx -= (db / count)[:, None, None]
    dx *= (weight * inv_std)[:, None, None]
    return dx, dw, db


@batch_norm_grad.naive
def batch_norm_grad_naive(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> Arrays3:
    """Work number by number."""
    dw, db = batch_norm_weight_grad_naive(grad, x, mean, inv_std)
    dx, count = np.empty_like(x), x.size // x.shape[1]
    for n, c, i, j in np.ndindex(x.shape):
        normalized = (float(x[n, c, i, j]) - float(mean[c])) * float(inv_std[c])
        g = float(grad[n, c, i, j]) - float(db[c]) / count - normalized * float(dw[c]) / count
        dx[n, c, i, j] = float(weight[c]) * float(inv_std[c]) * g
    return dx, dw, db


@kernel
def batch_norm_weight_grad(
    grad: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of batch norm for weight and bias (C,), whether mean and inv_std are the batch's or the running ones.

    grad and x are (N, C, H, W), mean and inv_std (C,):
    dw = sum grad (x - mean) inv_std and db = sum grad, over batch and pixels.
    """
    g = grad.reshape(*x.shape[:2], -1)
    centred = x.reshape(g.shape) - mean[:, None]
    return _channel_dot(g, centred) * inv_std, _channel_dot(g, np.ones(g.shape[-1], x.dtype))


@batch_norm_weight_grad.naive
def batch_norm_weight_grad_naive(
    grad: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Work number by number."""
    dw, db = [0.0] * len(mean), [0.0] * len(mean)
    for n, c, i, j in np.ndindex(x.shape):
        dw[c] += float(grad[n, c, i, j]) * (float(x[n, c, i, j]) - float(mean[c])) * float(inv_std[c])
        db[c] += float(grad[n, c, i, j])
    return np.array(dw, x.dtype), np.array(db, x.dtype)


@kernel
def scale_shift(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool) -> np.ndarray:
    """Return x * scale + shift by channel, then max(., 0) if `relu`: x (N, C, H, W), scale and shift (C,).

    What is left of bias, batch norm and ReLU once the statistics stand still.
    """
    y = x * scale[:, None, None]
    y += shift[:, None, None]
    return np.maximum(y, 0, out=y) if relu else y


@scale_shift.naive
def scale_shift_naive(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool) -> np.ndarray:
    """Work number by number."""
    out = np.empty_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        y = float(x[n, c, i, j]) * float(scale[c]) + float(shift[c])
        out[n, c, i, j] = 0.0 if relu and y < 0.0 else y
    return out
