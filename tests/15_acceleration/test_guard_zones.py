"""The compiled kernels read and write nothing but their arguments and results, wherever those lie in memory.

They count in addresses, and nothing checks their bounds at run time. So here each argument lies in a larger buffer, at
odd places, backwards, turned, repeated or off the boundaries of its numbers, with NaN all around it; and so does each
array that a kernel makes on its way. The NaN must stay where they are and must not show in a result, and the arguments
must not change.
"""

import ctypes
import math
import mmap
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import backend, get_num_threads, set_num_threads
from tinytorch.kernels import conv, matmul, pool
from tinytorch.kernels.compiled import conv as compiled_conv

many = settings(max_examples=100)
GUARD = np.array([0x7FC0BEEF], np.uint32).view(np.float32)[0]  # a NaN that no computation makes
sides = st.integers(0, 6)
steps = st.sampled_from([1, 1, 1, 2, 3, -1, -2, 0])


class Zone:
    """An array in the midst of a buffer: a larger array, its axes in some order in memory, without its margins."""

    def __init__(self, values, order, steps, margin, byte):
        strides = [max(abs(step), 1) for step in steps]
        lengths = [n * stride + 2 * margin for n, stride in zip(values.shape, strides, strict=True)]
        self.memory = np.zeros(byte + 4 * math.prod(lengths), np.uint8)
        block = np.ndarray([lengths[axis] for axis in order], np.float32, self.memory.data, byte)
        block[...] = GUARD
        inner = tuple(slice(margin, length - margin, stride) for length, stride in zip(lengths, strides, strict=True))
        turned = tuple(slice(None, None, -1 if step < 0 else 1) for step in steps)
        array = block.transpose(np.argsort(order))[inner][turned]
        repeated = [0 if step == 0 else stride for step, stride in zip(steps, array.strides, strict=True)]
        self.array = np.lib.stride_tricks.as_strided(array, values.shape, repeated)
        self.array[...] = values
        self.before = self.memory.copy()

    def is_untouched(self) -> bool:
        return bool(np.array_equal(self.memory, self.before))


class Allocator:
    """`np.empty` and `np.zeros` whose arrays are surrounded by guards, and filled with them where nothing is promised."""

    def __init__(self):
        self.buffers, self._empty = [], np.empty

    def empty(self, shape, dtype=float, order="C", fill=GUARD):
        if dtype != np.float32 or order != "C":
            out = self._empty(shape, dtype, order)
            out[...] = 0
            return out
        size = math.prod(shape) if isinstance(shape, tuple | list) else shape
        buffer = self._empty(size + 128, np.float32)
        buffer[...] = GUARD
        self.buffers.append(buffer)
        out = buffer[64 : 64 + size].reshape(shape)
        out[...] = fill
        return out

    def zeros(self, shape, dtype=float):
        return self.empty(shape, dtype, fill=0)

    def is_untouched(self):
        bits = GUARD.view(np.uint32)
        return all((b.view(np.uint32)[s] == bits).all() for b in self.buffers for s in (slice(64), slice(-64, None)))


def matmul_case(draw, array):
    m, k, n = draw(st.tuples(sides, sides, sides) | st.tuples(*[st.sampled_from([1, 15, 16, 33, 70])] * 3))
    batch = draw(st.sampled_from([(), (), (2,)]))
    return array(*batch, m, k), array(k, n)


def linear_case(draw, array):
    rows, n_in, n_out = draw(st.tuples(sides, sides, sides) | st.tuples(*[st.sampled_from([1, 15, 16, 33, 70])] * 3))
    return array(rows, n_in), array(n_out, n_in), draw(st.sampled_from([None, array(n_out)]))


def convolution(draw):
    """Return the shapes of image, weight and result, stride and padding."""
    n, c, o = draw(st.integers(0, 2)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 16, 17]))
    stride, padding = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    h, w = draw(st.tuples(*[st.integers(1, 6)] * 2))
    kernel = tuple(draw(st.integers(1, min(4, side + 2 * padding))) for side in (h, w))
    ho, wo = (conv.output_size(a, k, stride, padding) for a, k in zip((h, w), kernel, strict=True))
    return (n, c, h, w), (o, c, *kernel), (n, o, ho, wo), stride, padding


def conv2d_case(draw, array):
    x, weight, _, stride, padding = convolution(draw)
    return array(*x), array(*weight), draw(st.sampled_from([None, array(weight[0])])), stride, padding


def conv2d_input_grad_case(draw, array):
    x, weight, y, stride, padding = convolution(draw)
    return array(*y), array(*weight), x, stride, padding


def conv2d_weight_grad_case(draw, array):
    x, weight, y, stride, padding = convolution(draw)
    return array(*y), array(*x), weight[2:], stride, padding


def pooling(draw):
    """Return the shapes of image and result, window and stride."""
    n, c, stride = draw(st.integers(0, 2)), draw(st.sampled_from([1, 3, 16, 17])), draw(st.integers(1, 4))
    h, w = draw(st.tuples(*[st.integers(1, 6)] * 2))
    kernel = draw(st.integers(1, min(h, w)))
    return (n, c, h, w), (n, c, *(conv.output_size(a, kernel, stride, 0) for a in (h, w))), kernel, stride


def max_pool2d_grad_case(draw, array):
    x, y, kernel, stride = pooling(draw)
    image = array(*x)
    return array(*y), image, array(*y, values=pool.max_pool2d.version("numpy")(image, kernel, stride)), kernel, stride


def pool_case(draw, array):
    x, _, kernel, stride = pooling(draw)
    return array(*x), kernel, stride


def avg_pool2d_grad_case(draw, array):
    x, y, kernel, stride = pooling(draw)
    return array(*y), x, kernel, stride


CASES = {
    matmul.matmul: matmul_case,
    matmul.linear: linear_case,
    conv.conv2d: conv2d_case,
    conv.conv2d_input_grad: conv2d_input_grad_case,
    conv.conv2d_weight_grad: conv2d_weight_grad_case,
    conv.conv2d_bias_grad: lambda draw, array: (array(*convolution(draw)[2]),),
    pool.max_pool2d: pool_case,
    pool.max_pool2d_grad: max_pool2d_grad_case,
    pool.avg_pool2d: pool_case,
    pool.avg_pool2d_grad: avg_pool2d_grad_case,
}


def arrays_of(result) -> list[np.ndarray]:
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("kernel", CASES, ids=repr)
@many
@given(data=st.data())
def test_arguments_may_lie_anywhere_and_nothing_around_them_is_read_or_written(kernel, data):
    zones = []

    def array(*shape, values=None):
        """Multiples of 1/4, whose products and sums are exact."""
        if values is None:
            values = np.random.default_rng(len(zones)).integers(-8, 9, shape) / 4
        order = data.draw(st.permutations(range(len(shape))))
        by = [data.draw(steps) for _ in shape]
        zones.append(Zone(values, order, by, data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0, 0, 0, 1]))))
        return zones[-1].array

    arguments = CASES[kernel](data.draw, array)
    exact = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments]
    expected = arrays_of(kernel.version("numpy")(*exact))
    before, allocator = get_num_threads(), Allocator()
    set_num_threads(data.draw(st.sampled_from([1, 3])))
    try:
        with backend("numba"):
            results = arrays_of(kernel(*arguments))  # compiles, if it has to: not possible with another np.empty
            with mock.patch.multiple(np, empty=allocator.empty, zeros=allocator.zeros):
                again = arrays_of(kernel(*arguments))
    finally:
        set_num_threads(before)
    for first, second, wanted in zip(results, again, expected, strict=True):
        assert first.dtype == np.float32
        np.testing.assert_allclose(first, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(second, first)
    assert all(zone.is_untouched() for zone in zones)
    assert allocator.is_untouched()


class Pages:
    """Arrays that touch memory which may not be read: behind their last element, or before their first."""

    def __init__(self):
        self.kept, self.protect = [], ctypes.CDLL(None, use_errno=True).mprotect
        self.protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def array(self, shape, order="C", at_the_end=True):
        size = 4 * math.prod(shape)
        inner = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        block = mmap.mmap(-1, inner + 2 * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        for page in (start, start + mmap.PAGESIZE + inner):
            assert self.protect(page, mmap.PAGESIZE, 0) == 0
        self.kept.append(block)
        return np.ndarray(shape, np.float32, block, mmap.PAGESIZE + (inner - size if at_the_end else 0), order=order)

    def empty(self, shape, dtype=float, order="C"):
        out = self.array(shape if isinstance(shape, tuple) else (shape,), order)
        return out if dtype == np.float32 else np.full(shape, 0, dtype, order)

    def zeros(self, shape, dtype=float):
        out = self.empty(shape, dtype)
        out[...] = 0
        return out


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(data=st.data())
def call_at_the_edge_of_memory(kernel, data):
    pages = Pages()

    def array(*shape, values=1.0):
        out = pages.array(shape, data.draw(st.sampled_from("CF")), data.draw(st.booleans()))
        out[...] = values
        return out

    arguments, compiled = CASES[kernel](data.draw, array), kernel.version("numba")
    compiled(*arguments)
    with mock.patch.multiple(np, empty=pages.empty, zeros=pages.zeros):
        compiled(*arguments)


@pytest.mark.skipif(os.name == "nt", reason="protects pages with mprotect")
def test_not_even_a_number_beyond_the_arrays_is_read():
    """A vector read across the end would show in no result, and crash where the next page belongs to nobody."""
    done = subprocess.run([sys.executable, "-X", "faulthandler", __file__], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1]}: {done.stderr[-2000:]}"


@many
@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 2, st.sampled_from([1, 3, 16, 17])),
    offset=st.integers(-3, 6),
    dilation=st.integers(1, 3),
    first=st.integers(0, 4),
    rows=st.integers(1, 4),
    width=st.integers(1, 9),
)
def test_an_image_is_copied_with_its_margin_into_the_room_that_there_is(sizes, offset, dilation, first, rows, width):
    """The copy is made in memory that the compiled code takes for itself, which has no guards above."""
    image = np.random.default_rng(0).standard_normal((1, *sizes), np.float32)
    room = np.full(rows * width * sizes[2] + 128, GUARD)
    compiled_conv.surround(image, 0, first, rows, offset, dilation, room, 64, width)
    expected = np.zeros((rows, width, sizes[2]), np.float32)
    for y, x in np.ndindex(sizes[:2]):
        row, column = offset + y * dilation - first, offset + x * dilation
        if 0 <= row < rows and 0 <= column < width:
            expected[row, column] = image[0, y, x]
    np.testing.assert_array_equal(room[64:-64], expected.reshape(-1))
    assert np.isnan(room[:64]).all()
    assert np.isnan(room[-64:]).all()


if __name__ == "__main__":
    for one in CASES:
        print(one, flush=True)
        call_at_the_edge_of_memory(one)
