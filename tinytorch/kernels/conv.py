"""Two-dimensional convolution (cross-correlation) of NCHW images: as loops, and as a matrix product.

Source: the lowering to a matrix product is Chellapilla et al., "High performance convolutional neural networks
for document processing", IWFHR 2006.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinytorch.kernels.backend import kernel

_BLOCK_BYTES = 1 << 19  # columns of one block of images: half an L2 cache, so that the product reads them from there


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the number of positions of a window of `kernel` along an axis of `size`, `padding` added on both sides.

    >>> output_size(28, kernel=3, stride=1, padding=1)
    28
    """
    return (size + 2 * padding - kernel) // stride + 1


def _window(
    y: int, z: int, size: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (i, j, row, column): the weights of the window over output (y, z) that lie on the image, and on what."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row, column = y * stride + i - padding, z * stride + j - padding
            if 0 <= row < size[0] and 0 <= column < size[1]:
                yield i, j, row, column


def _blocks(n: int, bytes_per_image: int) -> list[slice]:
    step = max(1, _BLOCK_BYTES // max(1, bytes_per_image))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _columns(x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Lay every window of x (N, C, H, W) as a column; yields blocks of images and their columns (n, kh*kw*C, Ho*Wo).

    A row of an image is too short a run to be copied at full speed, so it is shifted only once for each column of the
    window: the shifted image then gives the window's rows in runs as long as the image.
    """
    n, c, h, w = x.shape
    kh, kw = kernel
    ho, wo = output_size(h, kh, stride, padding), output_size(w, kw, stride, padding)
    blocks = _blocks(n, kh * kw * c * ho * wo * x.itemsize)
    most = blocks[0].stop if blocks else 0
    padded = np.zeros((most, c, h + 2 * padding, w + 2 * padding), x.dtype)
    shifted = np.empty((most, c, h + 2 * padding, wo), x.dtype)
    columns = np.empty((most, kh, kw, c, ho, wo), x.dtype)
    for block in blocks:
        m = block.stop - block.start
        padded[:m, :, padding : padding + h, padding : padding + w] = x[block]
        for j in range(kw):
            shifted[:m] = padded[:m, :, :, j : j + stride * wo : stride]
            for i in range(kh):
                columns[:m, i, j] = shifted[:m, :, i : i + stride * ho : stride]
        yield block, columns[:m].reshape(m, kh * kw * c, ho * wo)


@kernel
def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: int, padding: int) -> np.ndarray:
    """Convolve x (N, C, H, W) with weight (O, C, kh, kw), add bias (O,): (N, O, Ho, Wo)."""
    n, _, h, w = x.shape
    o, _, kh, kw = weight.shape
    ho, wo = output_size(h, kh, stride, padding), output_size(w, kw, stride, padding)
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(o, -1)  # (O, kh*kw*C), as the columns lie
    out = np.empty((n, o, ho * wo), x.dtype)
    for block, columns in _columns(x, (kh, kw), stride, padding):
        np.matmul(rows, columns, out=out[block])
        if bias is not None:
            out[block] += bias[:, None]
    return out.reshape(n, o, ho, wo)


@conv2d.naive
def conv2d_naive(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: int, padding: int) -> np.ndarray:
    """Compute each output number as one sum over its window, number by number."""
    (n, _, h, w), (o, c, kh, kw) = x.shape, weight.shape
    out = np.empty((n, o, output_size(h, kh, stride, padding), output_size(w, kw, stride, padding)), x.dtype)
    for image, channel, y, z in np.ndindex(*out.shape):
        total = out.dtype.type(0) if bias is None else bias[channel]
        for i, j, row, column in _window(y, z, (h, w), (kh, kw), stride, padding):
            for k in range(c):
                total += weight[channel, k, i, j] * x[image, k, row, column]
        out[image, channel, y, z] = total
    return out


@kernel
def conv2d_input_grad(
    grad: np.ndarray, weight: np.ndarray, input_shape: tuple[int, ...], stride: int, padding: int
) -> np.ndarray:
    """Gradient of `conv2d` for x, of `input_shape` (N, C, H, W): each pixel hands its own back to its window.

    grad is (N, O, Ho, Wo), weight (O, C, kh, kw).
    """
    n, c, h, w = input_shape
    o, _, kh, kw = weight.shape
    ho, wo = grad.shape[-2:]
    rows = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(-1, o)  # (kh*kw*C, O)
    flat = grad.reshape(n, o, ho * wo)
    blocks = _blocks(n, rows.shape[0] * ho * wo * grad.itemsize)
    most = blocks[0].stop if blocks else 0
    shifted = np.empty((most, c, h + 2 * padding, wo), grad.dtype)
    padded = np.empty((most, c, h + 2 * padding, w + 2 * padding), grad.dtype)
    out = np.empty(input_shape, grad.dtype)
    for block in blocks:  # the steps of `_columns` backwards
        m = block.stop - block.start
        columns = np.matmul(rows, flat[block]).reshape(m, kh, kw, c, ho, wo)
        padded[...] = 0.0
        for j in range(kw):
            shifted[...] = 0.0
            for i in range(kh):
                shifted[:m, :, i : i + stride * ho : stride] += columns[:, i, j]
            padded[:m, :, :, j : j + stride * wo : stride] += shifted[:m]
        out[block] = padded[:m, :, padding : padding + h, padding : padding + w]
    return out


@conv2d_input_grad.naive
def conv2d_input_grad_naive(
    grad: np.ndarray, weight: np.ndarray, input_shape: tuple[int, ...], stride: int, padding: int
) -> np.ndarray:
    """Take each multiplication of `conv2d_naive` once more: its weight times the gradient goes to its pixel."""
    (_, c, h, w), (kh, kw) = input_shape, weight.shape[2:]
    out = np.zeros(input_shape, grad.dtype)
    for image, channel, y, z in np.ndindex(*grad.shape):
        g = grad[image, channel, y, z]
        for i, j, row, column in _window(y, z, (h, w), (kh, kw), stride, padding):
            for k in range(c):
                out[image, k, row, column] += weight[channel, k, i, j] * g
    return out


@kernel
def conv2d_weight_grad(
    grad: np.ndarray, x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int
) -> np.ndarray:
    """Gradient of `conv2d` for the weight: (O, C, kh, kw), summed over all images and positions.

    grad is (N, O, Ho, Wo), x (N, C, H, W), and `kernel` (kh, kw).
    """
    n, o, ho, wo = grad.shape
    c, (kh, kw) = x.shape[1], kernel
    flat = grad.reshape(n, o, ho * wo)
    total = np.zeros((kh * kw * c, o), grad.dtype)
    for block, columns in _columns(x, kernel, stride, padding):
        # columns first: OpenBLAS takes 30 % less time for the larger matrix on the left
        total += np.matmul(columns, flat[block].transpose(0, 2, 1)).sum(axis=0)
    return total.reshape(kh, kw, c, o).transpose(3, 2, 0, 1)


@conv2d_weight_grad.naive
def conv2d_weight_grad_naive(
    grad: np.ndarray, x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int
) -> np.ndarray:
    """Take each multiplication of `conv2d_naive` once more: its pixel times the gradient goes to its weight."""
    _, c, h, w = x.shape
    out = np.zeros((grad.shape[1], c, *kernel), grad.dtype)
    for image, channel, y, z in np.ndindex(*grad.shape):
        g = grad[image, channel, y, z]
        for i, j, row, column in _window(y, z, (h, w), kernel, stride, padding):
            for k in range(c):
                out[channel, k, i, j] += x[image, k, row, column] * g
    return out


@kernel
def conv2d_bias_grad(grad: np.ndarray) -> np.ndarray:
    """Gradient of `conv2d` for the bias: (O,), the sum of grad (N, O, Ho, Wo) over all images and positions."""
    return np.asarray(grad.sum(axis=(0, 2, 3)))


@conv2d_bias_grad.naive
def conv2d_bias_grad_naive(grad: np.ndarray) -> np.ndarray:
    """Add number by number."""
    out = np.zeros(grad.shape[1], grad.dtype)
    for n, o, y, z in np.ndindex(*grad.shape):
        out[o] += grad[n, o, y, z]
    return out
