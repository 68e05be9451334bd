"""Whole numbers are the same numbers on every backend, every path and every number of threads."""

import importlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.threads import assert_the_same_in_threads
from tinytorch.kernels.compiled.int8 import Program
from tinytorch.kernels.dot import current_dot_path, dot_path, dot_paths
from tinytorch.kernels.int8 import Convolution, Linear, Network, Pooling

networks = importlib.import_module("tests.16_quantization.int8_networks").networks

many = settings(max_examples=150)
GUARD = 0xA5


def on(backend, network, x):
    with tinytorch.backend(backend):
        return network(x)


@many
@given(networks(), st.sampled_from(dot_paths()), st.integers(1, 3))
def test_every_path_gives_the_codes_of_numpy_bit_for_bit(case, path, threads):
    network, images = case
    tinytorch.set_num_threads(threads)
    try:
        with dot_path(path):
            for x in (images.codes, images.numbers):
                expected, found = on("numpy", network, x), on("numba", network, x)
                assert found.dtype == expected.dtype
                assert found.shape == (len(x), *network.output_shape)
                np.testing.assert_array_equal(found, expected)
                np.testing.assert_array_equal(on("numba", network, x), expected)  # nothing is left in its memory
    finally:
        tinytorch.set_num_threads(1)


@settings(max_examples=25)
@given(networks())
def test_numpy_gives_the_codes_of_the_plain_loops(case):
    network, images = case
    for x in (images.codes[:1], images.numbers[:1]):
        np.testing.assert_array_equal(on("numpy", network, x), on("naive", network, x))


def one_layer(**changes):
    numbers = {
        "weight": np.ones((2, 1, 3, 3), np.int8), "bias": np.zeros(2, np.int32), "multiplier": np.ones(2, np.float32),
    }  # fmt: skip
    return Convolution(**numbers | changes)


@pytest.mark.parametrize("backend", ["naive", "numpy", "numba"])
def test_ties_go_to_the_even_number_before_the_zero_point_is_added(backend):
    """0.5 -> 0, 1.5 -> 2, 2.5 -> 2, and the zero point 1 after that."""
    layer = Linear(np.ones((1, 1), np.int8), np.zeros(1, np.int32), np.array([0.5], np.float32), zero_point=1)
    codes = np.arange(8, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(on(backend, Network([layer], (1,)), codes)[:, 0], [1, 1, 2, 3, 3, 3, 4, 5])


@pytest.mark.parametrize("path", dot_paths())
def test_the_largest_products_do_not_saturate_on_the_way(path):
    """255 * 127 * 2 is beyond 16 bits: the sum that Intel's vpmaddubsw would cut off."""
    layer = Linear(np.full((1, 8), 127, np.int8), np.zeros(1, np.int32), np.array([1.0], np.float32), floats=True)
    with dot_path(path):
        found = on("numba", Network([layer], (8,)), np.full((1, 8), 255, np.uint8))
    assert found[0, 0] == 8 * 255 * 127


def test_padding_has_the_code_of_zero():
    """The image is zero everywhere, so is the margin: no output differs at the border."""
    network = Network([one_layer(input_zero_point=9, padding=1)], (1, 4, 4))
    for backend in ("naive", "numpy", "numba"):
        assert not on(backend, network, np.full((1, 1, 4, 4), 9, np.uint8)).any()


@pytest.mark.parametrize("backend", ["naive", "numpy", "numba"])
def test_what_has_no_code_saturates_or_is_named(backend):
    network = Network([Linear(np.eye(3, dtype=np.int8), np.zeros(3, np.int32), np.ones(3, np.float32))], (3,))
    assert on(backend, network, np.array([[np.inf, -np.inf, 300.0]], np.float32)).tolist() == [[255, 0, 255]]
    with pytest.raises(ValueError, match="the input holds 2 NaN, which have no code"):
        on(backend, network, np.array([[1.0, np.nan, np.nan]], np.float32))
    with pytest.raises(ValueError, match=r"uint8 or float32 \(N, 3\), got float64 \(1, 3\)"):
        on(backend, network, np.zeros((1, 3)))


@pytest.mark.parametrize("path", dot_paths())
@settings(max_examples=50)
@given(case=networks())
def test_nothing_around_its_memory_is_written(path, case):
    """Results, scratch and the memory between layers lie between guards; the margins of zero codes stay."""
    network, images = case
    inputs = images.codes, images.numbers
    buffers, empty = [], np.empty

    def guarded(shape, dtype=float, order="C"):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = empty(size + 256, np.uint8)
        memory[:] = GUARD
        buffers.append((memory, size))
        return memory[128 : 128 + size].view(dtype).reshape(shape)

    with dot_path(path):
        expected = [on("numba", network, x) for x in inputs]  # compiles, if it has to
        with mock.patch.object(np, "empty", guarded):
            program = Program(network, path)
            found = [program(x) for x in inputs]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    for memory, size in buffers:
        assert (memory[:128] == GUARD).all()
        assert (memory[128 + size :] == GUARD).all()


def test_threads_that_share_a_network_do_not_share_its_memory():
    rng = np.random.default_rng(0)
    layers = [
        Convolution(rng.integers(-127, 128, (16, c, 3, 3), np.int8), np.zeros(16, np.int32),
                    np.full(16, 0.001, np.float32), padding=1, pool=2) for c in (1, 16)
    ]  # fmt: skip
    network = Network(layers, (1, 28, 28))
    batches = [rng.integers(0, 256, (20, 1, 28, 28), np.uint8) for _ in range(4)]
    with tinytorch.backend("numba"):
        assert_the_same_in_threads(network, batches)


def test_a_path_can_be_asked_and_forced():
    fastest = current_dot_path()
    assert fastest == dot_paths()[0]
    assert dot_paths()[-1] == "generic"
    with dot_path("generic"):
        assert current_dot_path() == "generic"
    assert current_dot_path() == fastest
    with pytest.raises(ValueError, match="there is no path 'mmx': choose one of"):
        dot_path("mmx")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weight": np.ones((2, 1, 3, 3))}, TypeError, "weight has to be int8, not float64"),
        ({"weight": np.ones((2, 1, 3, 2), np.int8)}, ValueError, r"has to be \(O, C, k, k\), got \(2, 1, 3, 2\)"),
        ({"stride": 0}, ValueError, "stride 0, padding 0, pool 1: no windows"),
        ({"bias": np.zeros(2)}, TypeError, "bias has to be int32"),
        ({"bias": np.zeros(3, np.int32)}, ValueError, "2 output channels need as many numbers"),
        ({"multiplier": np.array([1, 0], np.float32)}, ValueError, "finite number above zero"),
        ({"lowest": 3, "highest": 2}, ValueError, "do not lie in 0 ... 255"),
        ({"zero_point": 256}, ValueError, "zero_point 256 is no code"),
        ({"weight": np.full((2, 9000, 3, 3), 127, np.int8)}, ValueError, "a sum could reach 2,623,185,000"),
    ],
)
def test_numbers_that_make_no_layer_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        one_layer(**changes)


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([], (1, 4, 4), "at least one layer"),
        ([one_layer()], (2, 4, 4), r"layer 0, Convolution, takes \(1, H, W\), not \(2, 4, 4\)"),
        ([one_layer()], (1, 2, 2), "leaves nothing of images of 2 x 2"),
        ([one_layer(), one_layer()], (1, 8, 8), r"layer 1, Convolution, takes \(1, H, W\), not \(2, 6, 6\)"),
        ([Pooling(2, 2)], (4,), r"takes images \(C, H, W\), not \(4,\)"),
    ],
)
def test_layers_that_do_not_fit_are_named_with_their_place(layers, shape, message):
    with pytest.raises(ValueError, match=message):
        Network(layers, shape)
