"""The compiled kernels never touch a number beyond their arrays, not even one that shows in no result."""

import ctypes
import importlib
import math
import mmap
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = importlib.import_module("tests.15_acceleration.kernel_cases").CASES


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

    def array(*shape, values=1.0, positive=True, written=False):
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
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.15_acceleration.test_edges_of_memory"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1]}: {done.stderr[-2000:]}"


if __name__ == "__main__":
    for one in CASES:
        print(one, flush=True)
        call_at_the_edge_of_memory(one)
