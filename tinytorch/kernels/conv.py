"""Two-dimensional convolution (cross-correlation) of NCHW images as a matrix product.

Sources: the lowering to a matrix product is Chellapilla et al., "High performance convolutional neural networks
for document processing", IWFHR 2006.
"""

from __future__ import annotations

import numpy as np

_BLOCK_BYTES = 1 << 19  # columns of one block of images: half an L2 cache, so that the product reads them from there


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the number of positions of a window of `kernel` along an axis of `size`, `padding` added on both sides.

    >>> output_size(28, kernel=3, stride=1, padding=1)
    28
    """
    return (size + 2 * padding - kernel) // stride + 1


def pad(x: np.ndarray, padding: int, value: float = 0.0) -> np.ndarray:
    """Add `padding` rows and columns of `value` around every image: (N, C, H, W) -> (N, C, H + 2p, W + 2p)."""
    if padding == 0:
        return x
    n, c, h, w = x.shape
    out = np.full((n, c, h + 2 * padding, w + 2 * padding), value, x.dtype)
    out[:, :, padding:-padding, padding:-padding] = x
    return out


def _columns(xp: np.ndarray, kernel: tuple[int, int], stride: int, out: np.ndarray) -> np.ndarray:
    """Lay every window of the padded images `xp` (n, C, Hp, Wp) as a column: fills `out` (n, kh, kw, C, Ho, Wo)."""
    ho, wo = out.shape[-2:]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            out[:, i, j] = xp[:, :, i : i + stride * ho : stride, j : j + stride * wo : stride]
    return out


def _blocks(n: int, bytes_per_image: int) -> list[slice]:
    step = max(1, _BLOCK_BYTES // max(1, bytes_per_image))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: int, padding: int) -> np.ndarray:
    """Convolve x (N, C, H, W) with weight (O, C, kh, kw), add bias (O,): (N, O, Ho, Wo)."""
    n, c, h, w = x.shape
    o, _, kh, kw = weight.shape
    ho, wo = output_size(h, kh, stride, padding), output_size(w, kw, stride, padding)
    xp = pad(x, padding)
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(o, -1)  # (O, kh*kw*C), as the columns lie
    out = np.empty((n, o, ho * wo), x.dtype)
    blocks = _blocks(n, rows.shape[1] * ho * wo * x.itemsize)
    columns = np.empty((min(n, blocks[0].stop), kh, kw, c, ho, wo), x.dtype) if n else np.empty(0)
    for block in blocks:
        cols = _columns(xp[block], (kh, kw), stride, columns[: block.stop - block.start])
        np.matmul(rows, cols.reshape(len(cols), -1, ho * wo), out=out[block])
    if bias is not None:
        out += bias[:, None]
    return out.reshape(n, o, ho, wo)


def conv2d_input_grad(
    grad: np.ndarray, weight: np.ndarray, input_shape: tuple[int, ...], stride: int, padding: int
) -> np.ndarray:
    """Gradient of `conv2d` for x: every output pixel hands its gradient back to the window it came from."""
    n, c, h, w = input_shape
    o, _, kh, kw = weight.shape
    ho, wo = grad.shape[-2:]
    rows = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(-1, o)  # (kh*kw*C, O)
    out = np.zeros((n, c, h + 2 * padding, w + 2 * padding), grad.dtype)
    flat = grad.reshape(n, o, ho * wo)
    for block in _blocks(n, rows.shape[0] * ho * wo * grad.itemsize):
        cols = np.matmul(rows, flat[block]).reshape(-1, kh, kw, c, ho, wo)
        for i in range(kh):
            for j in range(kw):
                out[block, :, i : i + stride * ho : stride, j : j + stride * wo : stride] += cols[:, i, j]
    return out[:, :, padding : padding + h, padding : padding + w]


def conv2d_weight_grad(
    grad: np.ndarray, x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int
) -> np.ndarray:
    """Gradient of `conv2d` for the weight: (O, C, kh, kw), summed over all images and positions."""
    n, o, ho, wo = grad.shape
    c, (kh, kw) = x.shape[1], kernel
    xp = pad(x, padding)
    flat = grad.reshape(n, o, ho * wo)
    total = np.zeros((o, kh * kw * c), grad.dtype)
    blocks = _blocks(n, total.shape[1] * ho * wo * grad.itemsize)
    columns = np.empty((min(n, blocks[0].stop), kh, kw, c, ho, wo), x.dtype) if n else np.empty(0)
    for block in blocks:
        cols = _columns(xp[block], kernel, stride, columns[: block.stop - block.start])
        total += np.matmul(flat[block], cols.reshape(len(cols), -1, ho * wo).transpose(0, 2, 1)).sum(axis=0)
    return total.reshape(o, kh, kw, c).transpose(0, 3, 1, 2)
