"""The compiled kernels read and write nothing but their arguments and results, wherever those lie in memory.

They count in addresses, and nothing checks their bounds at run time. So here each argument lies in a larger buffer, at
odd places, backwards, turned, repeated or off the boundaries of its numbers, with NaN all around it; and so does each
array that a kernel makes on its way. The NaN must stay where they are and must not show in a result, and the arguments
must not change, unless the kernel is there to change them.
"""

import importlib
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import backend, get_num_threads, set_num_threads
from tinytorch.kernels import attention
from tinytorch.kernels.compiled import conv as compiled_conv

CASES = importlib.import_module("tests.15_acceleration.kernel_cases").CASES

many = settings(max_examples=100)
GUARD = np.array([0x7FC0BEEF], np.uint32).view(np.float32)[0]  # a NaN that no computation makes
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
        self.array, self.values = np.lib.stride_tricks.as_strided(array, values.shape, repeated), values
        self.array[...] = GUARD
        self.around = self.memory.copy()
        self.array[...] = values
        self.before = self.memory.copy()

    def is_untouched(self) -> bool:
        return bool(np.array_equal(self.memory, self.before))

    def surroundings_are_untouched(self) -> bool:
        """For an array that is written to; that it stays as it was is asked of nobody."""
        self.array[...] = GUARD
        untouched = bool(np.array_equal(self.memory, self.around))
        self.array[...] = self.values
        return untouched


class Allocator:
    """`np.empty` and `np.zeros` whose arrays lie between guards, and are full of them where nothing is promised."""

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


def arrays_of(result) -> list[np.ndarray]:
    if result is None:
        return []
    return [np.asarray(r) for r in (result if isinstance(result, tuple) else [result])]


@pytest.mark.parametrize("kernel", CASES, ids=repr)
@many
@given(data=st.data())
def test_arguments_may_lie_anywhere_and_nothing_around_them_is_read_or_written(kernel, data):
    zones, results, layout = [], [], data.draw(st.sampled_from(["any", "any", "backwards", "rows backwards"]))

    def array(*shape, values=None, positive=False, written=False):
        """Multiples of 1/4, whose products and sums are exact."""
        each = written or values is not None  # then no element may be repeated
        if values is None:
            values = np.random.default_rng(len(zones)).integers(1 if positive else -8, 9, shape) / 4
        order, by = range(len(shape)), [-1] * len(shape)
        if layout == "rows backwards" and shape:
            by[-1] = 1
        elif layout == "any":
            order = data.draw(st.permutations(order))
            by = [data.draw(steps) or int(each) for _ in shape]
        zone = Zone(
            np.asarray(values), order, by, data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0, 0, 0, 1]))
        )
        (results if written else zones).append(zone)
        return zone.array

    def run(version):
        """Return what a version returns, and what it writes to its arguments."""
        out = arrays_of(version(*arguments))
        if kernel is attention.attention:
            del out[1]  # what is kept for the gradients differs from version to version
        written = [zone.array.copy() for zone in results]
        assert all(zone.surroundings_are_untouched() for zone in results)
        assert all(zone.is_untouched() for zone in zones)
        return out + written

    arguments = CASES[kernel](data.draw, array)
    expected = run(kernel.version("naive"))
    before, allocator = get_num_threads(), Allocator()
    set_num_threads(data.draw(st.sampled_from([1, 3])))
    try:
        with backend("numba"):
            first = run(kernel)  # compiles, if it has to: not possible with another np.empty
            with mock.patch.multiple(np, empty=allocator.empty, zeros=allocator.zeros):
                second = run(kernel)
    finally:
        set_num_threads(before)
    assert allocator.is_untouched()
    for wanted, got, again in zip(expected, first, second, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(again, got)


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
