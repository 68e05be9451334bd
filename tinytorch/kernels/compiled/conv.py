"""Convolution as a matrix product whose left matrix is never written down.

Images lie with their channels last: (N, H, W, C) in memory, seen as (N, C, H, W). Then the pixels under one row of the
window are one run of memory, kernel_width * C numbers long, and the next window's run begins C * stride numbers further
on. A register tile takes some neighbouring windows times some vectors of output channels, and reads the windows where
they stand: no im2col. Only the image is copied once, row block by row block, to surround it with zeros.

Source: the indirect product is that of Dukhan, "The indirect convolution algorithm" (2019), with the table of pointers
replaced by arithmetic.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.matmul import matmul_simd
from tinytorch.kernels.compiled.simd import LANES, REGISTERS, broadcast, flat, load, load_first, store, store_first
from tinytorch.kernels.compiled.threads import parallel_for
from tinytorch.kernels.compiled.tiles import (
    add_outer_product,
    load_tile,
    relu_tile,
    repeat,
    store_corner,
    store_tile,
    zeros,
)
from tinytorch.kernels.conv import output_size

_ROWS_AT_A_TIME = 8  # rows of the result that one copy of the image serves: with its halo it stays in the L2 cache

# (windows, vectors) of the tiles that are compiled: the fewest that leave no common shape slow
TILES = (
    ((14, 1), (8, 1), (14, 2), (8, 2), (7, 2), (6, 4), (4, 4), (1, 4))
    if REGISTERS == 32
    else ((8, 1), (7, 1), (4, 1), (6, 2), (4, 2), (4, 3), (2, 4), (1, 4))
)


@cache
def choose_tile(width: int, channels: int) -> int:
    """Return the index in TILES of the tile for rows of `width` windows and `channels` output channels.

    The last tile of a row is moved back to end with it, so a width that is no multiple costs work twice.
    """

    def score(index: int) -> float:
        windows, vectors = TILES[index]
        if windows > width:
            return 0.0
        useful = (
            width / (-(-width // windows) * windows) * channels / (-(-channels // (vectors * LANES)) * vectors * LANES)
        )
        loads = (windows + vectors) / (windows * vectors)  # for each multiplication
        return useful * min(1.0, windows * vectors / 8) / (1 + 0.1 * loads)  # 8 products must be under way at once

    return max(range(len(TILES)), key=score)


def images_last(x: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) as contiguous (N, H, W, C): a view where their memory already lies so."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def pack_weights(weight: np.ndarray, bias: np.ndarray | None, vectors: int) -> np.ndarray:
    """Lay bias (O,) and weights (O, C, kh, kw) in one piece: the bias, then panels of shape (kh * kw * C, width).

    A panel serves as many output channels as `vectors` hold; the last one is filled up with zeros, as is the bias.
    """
    width, out_channels = vectors * LANES, weight.shape[0]
    count, depth = -(-out_channels // width), weight[0].size
    packed = np.zeros((1 + depth) * count * width, np.float32)
    if bias is not None:
        packed[:out_channels] = bias
    panels = packed[count * width :].reshape(count, depth, width)
    rows = weight.transpose(2, 3, 1, 0).reshape(depth, out_channels)
    for p in range(count):
        part = rows[:, p * width : (p + 1) * width]
        panels[p, :, : part.shape[1]] = part
    return packed


@jit
def _copy(source, i, target, j, count):
    for k in range(0, count - LANES + 1, LANES):
        store(target, j + k, load(source, i + k))
    whole = count // LANES * LANES
    if whole < count:
        store_first(target, j + whole, load_first(source, i + whole, count - whole), count - whole)


@jit
def _clear(target, j, count):
    zero = broadcast(np.float32(0))
    for k in range(0, count, LANES):
        store_first(target, j + k, zero, count - k)


@jit
def surround(images, n, first, rows, offset, dilation, padded, place, width):
    """Copy the rows first ... first + rows - 1 of padded image n of (N, H, W, C) to padded[place], `width` pixels each.

    The image begins `offset` rows and columns in; its pixels stand `dilation` apart. The rest is zero.
    """
    height, columns, channels = images.shape[1:]
    source, pitch = flat(images), width * channels
    left = min(max(offset, 0), width)  # a large stride may leave out all but the zeros in front
    right = max(min(offset + columns, width), left)
    for r in range(rows):
        start = place + r * pitch
        y, skipped = divmod(first + r - offset, dilation)
        inside = skipped == 0 and 0 <= y < height
        row = (n * height + y) * columns
        if inside and dilation == 1:
            _clear(padded, start, left * channels)
            _copy(source, (row + left - offset) * channels, padded, start + left * channels, (right - left) * channels)
            _clear(padded, start + right * channels, (width - right) * channels)
        else:
            _clear(padded, start, pitch)
            for x in range(columns if inside else 0):
                at = offset + x * dilation
                if 0 <= at < width:
                    _copy(source, (row + x) * channels, padded, start + at * channels, channels)


def row_kernel(windows: int, vectors: int):
    """Compile the convolution of one row of the result by tiles of that shape."""
    width = vectors * LANES

    @jit
    def row(padded, place, pitch, step, kh, low, high, run, packed, start, relu, out, target, columns, channels):
        """Write `columns` results of `channels` each to out[target]; the first window begins at padded[place].

        Windows are `step` apart and have kh rows, `pitch` apart, of `run` numbers; outside of the rows low ... high - 1
        there are only zeros. The weights lie at packed[start].
        """
        panels = -(-channels // width)
        for p in range(panels):
            rest = channels - p * width
            for first in range(0, columns, windows):
                x = min(first, columns - windows)
                tile = repeat(load_tile(packed, start + p * width, vectors), windows)
                j = start + (panels + (p * kh + low) * run) * width
                for ky in range(low, high):
                    i = place + ky * pitch + x * step
                    for k in range(run):
                        tile = add_outer_product(tile, padded, i + k, step, load_tile(packed, j, vectors))
                        j += width
                if relu:
                    tile = relu_tile(tile)
                at = target + x * channels + p * width
                if rest >= width:
                    store_tile(tile, out, at, channels, vectors)
                else:
                    store_corner(tile, out, at, channels, windows, rest, vectors)

    return row


_row0, _row1, _row2, _row3, _row4, _row5, _row6, _row7 = (row_kernel(*tile) for tile in TILES)


@jit
def convolve_row(tile, *arguments):
    """Call the row kernel of TILES[tile]."""
    if tile == 0:
        _row0(*arguments)
    elif tile == 1:
        _row1(*arguments)
    elif tile == 2:
        _row2(*arguments)
    elif tile == 3:
        _row3(*arguments)
    elif tile == 4:
        _row4(*arguments)
    elif tile == 5:
        _row5(*arguments)
    elif tile == 6:
        _row6(*arguments)
    else:
        _row7(*arguments)


@jit
def seen_rows(y, stride, offset, dilation, height, kh):
    """Return the first row of the window of result row y that lies in the image, and the first that no longer does."""
    above = offset - y * stride
    low = min(max(above, 0), kh)
    return low, max(min(above + (height - 1) * dilation + 1, kh), low)


@jit
def _convolve(tile, images, offset, dilation, stride, kh, kw, packed, out, start, stop):
    """Compute the row blocks start ... stop - 1 of the result, counted through all images."""
    channels = images.shape[3]
    height, columns, out_channels = out.shape[1:]
    blocks = -(-height // _ROWS_AT_A_TIME)
    width = (columns - 1) * stride + kw
    pitch = width * channels
    padded = np.empty(((_ROWS_AT_A_TIME - 1) * stride + kh) * pitch, np.float32)
    for item in range(start, stop):
        n, block = divmod(item, blocks)
        first = block * _ROWS_AT_A_TIME
        rows = min(_ROWS_AT_A_TIME, height - first)
        surround(images, n, first * stride, (rows - 1) * stride + kh, offset, dilation, padded, 0, width)
        for y in range(rows):
            low, high = seen_rows(first + y, stride, offset, dilation, images.shape[1], kh)
            target = ((n * height + first + y) * columns) * out_channels
            convolve_row(
                tile, padded, y * stride * pitch, pitch, stride * channels, kh, low, high, kw * channels,
                packed, 0, False, flat(out), target, columns, out_channels,
            )  # fmt: skip


def _run(images, weight, bias, size, offset, dilation, stride):
    """Convolve images (N, H, W, C) with weight (O, C, kh, kw): a result of (N, *size, O), seen as (N, O, *size)."""
    out_channels, _, kh, kw = weight.shape
    out = np.empty((len(images), *size, out_channels), np.float32)
    if out.size:
        tile = choose_tile(size[1], out_channels)
        packed = pack_weights(weight, bias, TILES[tile][1])
        blocks = len(images) * -(-size[0] // _ROWS_AT_A_TIME)
        parallel_for(_convolve, blocks, tile, images, offset, dilation, stride, kh, kw, packed, out)
    return out.transpose(0, 3, 1, 2)


def conv2d(x, weight, bias, stride, padding):
    """Convolve x (N, C, H, W) with weight (O, C, kh, kw), add bias (O,): (N, O, Ho, Wo), channels last in memory."""
    size = tuple(output_size(n, k, stride, padding) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True))
    return _run(images_last(x), weight, bias, size, padding, 1, stride)


def conv2d_input_grad(grad, weight, input_shape, stride, padding):
    """Gradient of `conv2d` for x: the convolution of the gradient with the weights turned around."""
    turned, (kh, kw) = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), weight.shape[2:]
    kernel = max(kh, kw)
    if kh != kw:  # one offset has to do for rows and columns
        turned = np.pad(turned, ((0, 0), (0, 0), (kernel - kh, 0), (kernel - kw, 0)))
    return _run(images_last(grad), turned, None, input_shape[2:], kernel - 1 - padding, stride, 1)


@cache
def weight_kernel(rows: int, vectors: int):
    """Compile the weight gradient by tiles of `rows` numbers under a row of the window times `vectors` channels."""
    width, size = vectors * LANES, rows * vectors

    @jit
    def weight_grad(images, grads, offset, stride, kh, kw, chunk, sums, start, stop):
        """Write to sums[i] (kh * kw * C, width * panels) the part of the images i * chunk ... (i + 1) * chunk - 1."""
        channels = images.shape[3]
        height, columns, padded_channels = grads.shape[1:]
        run, pitch = kw * channels, ((columns - 1) * stride + kw) * channels
        padded_rows = (height - 1) * stride + kh
        padded = np.empty(chunk * padded_rows * pitch, np.float32)
        g, target = flat(grads), flat(sums)
        for item in range(start, stop):
            first = item * chunk
            count = min(chunk, images.shape[0] - first)
            for n in range(count):
                surround(
                    images, first + n, 0, padded_rows, offset, 1, padded, n * padded_rows * pitch, pitch // channels
                )
            for ky in range(kh):
                low = max(
                    0, -(-(offset - ky) // stride)
                )  # rows of the gradient whose window has its row ky in the image
                high = min(height, (images.shape[1] - 1 + offset - ky) // stride + 1)
                for p in range(padded_channels // width):
                    for r in range(0, run, rows):
                        k = min(r, run - rows)
                        tile = zeros(size)
                        for n in range(count):
                            for y in range(low, high):
                                i = (n * padded_rows + y * stride + ky) * pitch + k
                                j = (((first + n) * height + y) * columns) * padded_channels + p * width
                                for x in range(columns):
                                    row = load_tile(g, j + x * padded_channels, vectors)
                                    tile = add_outer_product(tile, padded, i + x * stride * channels, 1, row)
                        place = ((item * kh + ky) * run + k) * padded_channels + p * width
                        store_tile(tile, target, place, padded_channels, vectors)

    return weight_grad


@cache
def _weight_tile(run: int, channels: int) -> tuple[int, int]:
    """Choose (rows, vectors): a row of the window in whole tiles if possible, all channels in one panel."""
    vectors = next(v for v in (4, 3, 2, 1) if channels % (v * LANES) == 0 and (v < 3 or REGISTERS == 32))
    most = min(run, (REGISTERS - 1) // vectors - 1, 14)
    return max(range(1, most + 1), key=lambda r: (run / (-(-run // r) * r) * min(1.0, r * vectors / 8), r)), vectors


def conv2d_weight_grad(grad, x, kernel, stride, padding):
    """Gradient of `conv2d` for the weight: (O, C, kh, kw), summed over all images and positions."""
    images, grads, (kh, kw) = images_last(x), images_last(grad), kernel
    out_channels, channels = grads.shape[3], images.shape[3]
    missing = -out_channels % LANES
    if missing:
        grads = np.pad(grads, ((0, 0), (0, 0), (0, 0), (0, missing)))
    if not grads.size or not images.size:
        return np.zeros((out_channels, channels, kh, kw), np.float32)
    rows, vectors = _weight_tile(kw * channels, out_channels + missing)
    chunk = max(1, min(4, (1 << 17) // images[0].nbytes))  # images that wait in the cache while all weights pass by
    parts = -(-len(images) // chunk)
    sums = np.empty((parts, kh * kw * channels, out_channels + missing), np.float32)
    parallel_for(weight_kernel(rows, vectors), parts, images, grads, padding, stride, kh, kw, chunk, sums)
    total = sums.sum(axis=0)[:, :out_channels]  # in the order of the images, whoever computed the parts
    return total.reshape(kh, kw, channels, out_channels).transpose(3, 2, 0, 1)


def conv2d_bias_grad(grad):
    """Gradient of `conv2d` for the bias: (O,), as a product with ones."""
    pixels = images_last(grad).reshape(-1, grad.shape[1])
    return matmul_simd(np.ones((1, len(pixels)), np.float32), pixels)[0]
