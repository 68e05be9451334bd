"""Layers that round their input row by row compute what the definition says, bit for bit, on every backend."""

import importlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, backend, no_grad
from tinytorch.kernels.backend import set_num_threads
from tinytorch.profiling import FLOPCounter
from tinytorch.quantization import DynamicQuantizedLinear, dot_path, dot_paths

rows = importlib.import_module("tests.16_quantization.rounded_rows")
TINY, linear, normal, defined, same_bits = rows.TINY, rows.linear, rows.normal, rows.defined, rows.same_bits

BATCHES = st.lists(st.integers(0, 5), max_size=3)


@pytest.mark.parametrize("name", ["naive", "numpy", "numba"])
@settings(max_examples=40)
@example(batch=[1, 512], inputs=128, outputs=70, bits=8, bias=True, power=0, seed=0)
@example(batch=[33], inputs=1, outputs=1, bits=2, bias=False, power=-44, seed=0)
@given(
    BATCHES, st.integers(1, 80), st.integers(1, 80), st.integers(2, 8), st.booleans(), st.integers(-44, 38),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_every_backend_computes_the_definition_bit_for_bit(name, batch, inputs, outputs, bits, bias, power, seed):
    if name == "numba":
        pytest.importorskip("numba")
    if name == "naive" and np.prod(batch) > 9:
        return
    layer = DynamicQuantizedLinear.from_float(linear(inputs, outputs, bias, seed), bits)
    x = np.random.default_rng(seed).uniform(-1, 1, (*batch, inputs)) * 10.0**power
    x = x.astype(np.float32)
    with backend(name):
        found = layer(Tensor(x)).data
    assert found.dtype == np.float32
    same_bits(found, defined(layer, x))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_it_is_off_from_the_float_layer_by_no_more_than_its_roundings(seed, bits):
    """(w + dw) (x + dx) - w x, with dw and dx at half a step."""
    dense, x = linear(seed=seed), normal(6, 40, seed=seed)
    layer = DynamicQuantizedLinear.from_float(dense, bits)
    lost = np.abs(dense.weight.data - layer.weight * layer.weight_scale[:, None]).sum(axis=1)
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    off = np.abs(dense.weight.data).sum(axis=1) * step / 2 + lost * (np.abs(x).max(axis=1, keepdims=True) + step / 2)
    assert (np.abs(layer(Tensor(x)).data - dense(Tensor(x)).data) <= off * (1 + 1e-3) + 1e-5).all()


def test_every_instruction_gives_the_same_bits():
    pytest.importorskip("numba")
    layer, x = DynamicQuantizedLinear.from_float(linear(131, 70)), normal(17, 131)
    for path in dot_paths():
        with backend("numba"), dot_path(path):
            same_bits(layer(Tensor(x)).data, defined(layer, x))


@pytest.mark.parametrize("threads", [1, 3])
def test_many_rows_in_any_order_of_memory_and_by_any_number_of_threads(threads):
    pytest.importorskip("numba")
    layer, x = DynamicQuantizedLinear.from_float(linear(33, 20)), np.asfortranarray(normal(50, 33))
    with backend("numba"):
        set_num_threads(threads)
        try:
            found = layer(Tensor(x)), layer(Tensor(x[::-2]))
        finally:
            set_num_threads(1)
    same_bits(found[0].data, defined(layer, x))
    same_bits(found[1].data, defined(layer, x[::-2]))


def between_guards(x):
    """Return the same numbers in the midst of a buffer that is NaN elsewhere, and the buffer."""
    memory = np.full(x.size + 128, np.nan, np.float32)
    array = memory[64 : 64 + x.size].reshape(x.shape)
    array[...] = x
    return array, memory


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 9, 13])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 63), (17, 64), (34, 65), (131, 4)])
def test_compiled_code_reads_and_writes_nothing_beside_its_arrays(count, inputs, outputs):
    pytest.importorskip("numba")
    layer, buffers, allocate = DynamicQuantizedLinear.from_float(linear(inputs, outputs)), [], np.empty
    x, around = between_guards(normal(count, inputs))
    layer.bias, beside = between_guards(layer.bias)
    expected = defined(layer, x)

    def guarded(shape, dtype=float, order="C"):
        if dtype != np.float32 or order != "C":
            return allocate(shape, dtype, order)
        out, memory = between_guards(np.zeros(shape, np.float32))
        buffers.append(memory)
        return out

    with backend("numba"), mock.patch.object(np, "empty", guarded):
        found = layer(Tensor(x)).data
    same_bits(found, expected)
    assert buffers
    for memory in (around, beside, *buffers):
        assert np.isnan(memory[:64]).all()
        assert np.isnan(memory[-64:]).all()
    same_bits(x, normal(count, inputs))


def test_a_row_has_the_same_result_whatever_stands_beside_it():
    layer, x = DynamicQuantizedLinear.from_float(linear()), normal(2, 3, 40)
    alone = layer(Tensor(x[1, 2])).data
    x[0], x[1, :2] = 1e30, 0.0
    same_bits(layer(Tensor(x)).data[1, 2], alone)


def test_a_row_of_zeros_gives_the_bias_itself():
    layer = DynamicQuantizedLinear.from_float(linear())
    same_bits(layer(Tensor(np.zeros((3, 40), np.float32))).data, np.tile(layer.bias, (3, 1)))


@pytest.mark.parametrize("size", [np.finfo(np.float32).max, TINY, np.finfo(np.float32).smallest_subnormal])
def test_the_largest_and_the_smallest_numbers_have_codes(size):
    """A row of nothing but one number loses nothing; where numbers have no digits left, they turn zero."""
    layer = DynamicQuantizedLinear(np.full((1, 4), 1, np.int8), np.full(1, 0.125, np.float32))
    found = layer(Tensor(np.full((2, 4), size, np.float32))).data
    np.testing.assert_allclose(found, size / 2 if size > TINY else 0, rtol=1e-6, atol=TINY)


def test_a_channel_of_zeros_and_weights_of_one_sign_are_kept():
    dense = linear(4, 3)
    dense.weight.data[:] = [[0, 0, 0, 0], [127, 64, 1, 0], [-127, -64, -1, 0]]
    found = DynamicQuantizedLinear.from_float(dense)
    np.testing.assert_array_equal(found.weight, dense.weight.data)
    np.testing.assert_array_equal(found.weight_scale, [1, 1, 1])


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_numbers_without_a_code_are_counted_in_an_error(name, strange):
    if name == "numba":
        pytest.importorskip("numba")
    x = normal(3, 40)
    x[1, 7] = x[2, 0] = strange
    with backend(name), pytest.raises(ValueError, match="2 of 120 numbers that come in are NaN or infinite"):
        DynamicQuantizedLinear.from_float(linear())(Tensor(x))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (normal(3, 41), ValueError, r"takes inputs of 40 features, got shape \(3, 41\)"),
        (np.float32(1.0), ValueError, r"got shape \(\)"),
        (np.ones((3, 40)), TypeError, "computes from float32, got float64"),
    ],
)
def test_inputs_that_do_not_fit_are_named(x, error, message):
    with pytest.raises(error, match=message):
        DynamicQuantizedLinear.from_float(linear())(Tensor(x))


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        ((np.ones((2, 3), np.uint8), np.ones(2, np.float32)), TypeError, "weight has to be int8, not uint8"),
        ((np.ones((2, 3), np.int8), np.ones(3, np.float32)), ValueError, "2 output channels need as many numbers"),
        ((np.ones((2, 3), np.int8), np.zeros(2, np.float32)), ValueError, "a finite number above zero"),
        ((np.ones(2, np.int8), np.ones(2, np.float32)), ValueError, r"weight has to be \(O, I\), got \(2,\)"),
        ((np.full((1, 70_000), 127, np.int8), np.ones(1, np.float32)), ValueError, "beyond 32 bits"),
        (
            (np.ones((2, 3), np.int8), np.ones(2, np.float32), np.ones(3, np.float32)), ValueError,
            r"bias has to be float32 \(2,\), not float32 \(3,\)",
        ),
    ],
)  # fmt: skip
def test_numbers_that_make_no_layer_are_named(numbers, error, message):
    with pytest.raises(error, match=message):
        DynamicQuantizedLinear(*numbers)


def test_weights_that_have_no_code_and_bits_that_are_none_are_named():
    dense = linear()
    with pytest.raises(ValueError, match="from 2 to 8, got 9"):
        DynamicQuantizedLinear.from_float(dense, weight_bits=9)
    dense.weight.data[3, 1] = np.inf
    with pytest.raises(ValueError, match="NaN or infinite at 1 of 960 places"):
        DynamicQuantizedLinear.from_float(dense)


def test_what_it_stores_and_how_it_looks():
    layer = DynamicQuantizedLinear.from_float(linear(), weight_bits=6)
    assert layer.nbytes == 40 * 24 + 4 * 24 + 4 * 24 == sum(a.nbytes for a in layer.state_dict().values())
    assert list(layer.state_dict()) == ["weight", "weight_scale", "bias"]
    assert np.abs(layer.weight).max() == 31
    assert repr(layer) == "DynamicQuantizedLinear(in_features=40, out_features=24, bias=True, weight_bits=6)"
    assert DynamicQuantizedLinear.from_float(linear(bias=False)).nbytes == 40 * 24 + 4 * 24


def test_it_shares_no_memory_with_the_float_layer():
    dense, x = linear(), Tensor(normal(3, 40))
    layer = DynamicQuantizedLinear.from_float(dense)
    before = layer(x).data
    for parameter in dense.parameters():
        parameter.data[:] = 0
    same_bits(layer(x).data, before)


def test_there_is_no_gradient_and_an_error_says_so():
    layer = DynamicQuantizedLinear.from_float(linear())
    with pytest.raises(NotImplementedError, match="no derivative"):
        layer(Tensor(normal(3, 40), requires_grad=True)).sum().backward()


@pytest.mark.parametrize("bias", [True, False])
def test_its_operations_are_counted(bias):
    layer = DynamicQuantizedLinear.from_float(linear(bias=bias))
    with FLOPCounter(layer, strict=True) as counter, no_grad():
        layer(Tensor(normal(2, 3, 40)))
    assert counter.total.macs == 6 * 40 * 24
    assert counter.total.flops == 6 * (2 * 40 * 24 + 4 * 40 + 2 + 24 * (2 + bias))
    assert counter.total.bytes == 4 * 6 * 40 + layer.nbytes + 4 * 6 * 24
