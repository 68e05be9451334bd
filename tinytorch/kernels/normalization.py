"""Normalization to mean 0 and variance 1 within groups: what batch norm and layer norm share.

Arrays have shape (N, G, L); a group is everything of one index on the middle axis. Batch norm of images is N images
of G channels of L pixels; layer norm is N = 1, G vectors of L elements.
"""

from __future__ import annotations

import numpy as np


def group_sum(x: np.ndarray) -> np.ndarray:
    """Sum every group: (N, G, L) -> (G, 1). As a product with ones, which BLAS does faster than NumPy sums."""
    return group_dot(x, np.ones(x.shape[-1], x.dtype))


def group_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum a * b over every group, without an array for the products: (N, G, L) -> (G, 1)."""
    return np.asarray(np.vecdot(a, b).sum(axis=0)[:, None])


def normalize(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (x - mean) / sqrt(var + eps), and of each group mean, biased variance and 1 / sqrt(var + eps): (G, 1)."""
    count = x.dtype.type(x.shape[0] * x.shape[2])
    mean = group_sum(x) / count
    centred = x - mean
    var = group_dot(centred, centred) / count
    inv_std = 1.0 / np.sqrt(var + x.dtype.type(eps))
    centred *= inv_std
    return centred, mean, var, inv_std


def normalize_grad(
    grad: np.ndarray, normalized: np.ndarray, scale: np.ndarray, mean: np.ndarray, mean_product: np.ndarray
) -> np.ndarray:
    """Gradient of `normalize` for x, mean and variance depending on x too: scale * (g - mean(g) - n * mean(g * n)).

    Source: Ioffe & Szegedy, "Batch normalization" (2015), section 3, simplified. `scale` is 1 / sqrt(var + eps), or
    a multiple. The two means (G, 1) are passed in: batch norm has them from the gradients of its weight and bias.
    """
    out = normalized * -mean_product
    out += grad
    out -= mean
    out *= scale
    return out
