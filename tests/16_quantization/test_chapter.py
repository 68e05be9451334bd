"""What the chapter has its reader derive by hand is what the package does."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import solutions
from tinytorch import Tensor
from tinytorch.kernels import int8
from tinytorch.kernels.compiled.int8_conv import pack_weights
from tinytorch.quantization import dequantize, quantize_per_tensor
from tinytorch.quantization.affine import qparams_of_range
from tinytorch.quantization.qat_layers import FakeQuantize

solved = partial(solutions.solved, "16_quantization")


@given(st.floats(-100, 100, width=32), st.floats(0.125, 100, width=32), st.integers(2, 8))
def test_the_reader_s_scale_and_zero_point_are_the_package_s(low, width, bits):
    scale, zero_point = solved("qparams")(low, low + width, bits)
    expected, code = qparams_of_range(low, low + width, bits=bits)
    assert scale == pytest.approx(float(expected), rel=1e-6)
    assert abs(zero_point - int(code)) <= 1  # scales that differ in the last bit may part where two codes are as near


def test_as_many_inputs_as_the_reader_counts_are_taken_and_no_more():
    inputs = solved("largest_inputs")(8, 32)

    def layer(count):
        return int8.Linear(np.full((1, count), 127, np.int8), np.zeros(1, np.int32), np.ones(1, np.float32))

    assert int(layer(inputs).largest_sums()[0]) < 1 << 31
    with pytest.raises(ValueError, match="beyond 32 bits"):
        layer(inputs + 1)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.sampled_from([3, 6, 12, 24]))
def test_the_reader_s_squared_error_is_that_of_the_package_s_codes(values, high):
    x = np.array(values, np.float32)
    scale, zero_point = qparams_of_range(0.0, high, bits=2)
    back = dequantize(quantize_per_tensor(x, scale, zero_point, bits=2), scale, zero_point)
    assert solved("squared_error")(values, high, 2) == pytest.approx(float(((back - x) ** 2).sum()))


@pytest.mark.parametrize(("kernel", "channels"), [(3, 1), (3, 3), (5, 1), (2, 3), (3, 16)])
def test_the_share_of_products_that_count_is_that_of_the_packed_weights(kernel, channels):
    packed = pack_weights(np.ones((16, channels, kernel, kernel), np.int8), 16)
    assert solved("useful")(kernel, channels) == packed.mean()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=3))
def test_no_other_bits_within_the_budget_lose_less(layers):
    weights = tuple(8 * count for count, _, _ in layers)
    losses = tuple((two + four, four, 0) for _, two, four in layers)
    budget = sum(weights) / 2
    chosen = solved("best_bits")(weights, losses, budget)

    def lost(ways):
        return sum(loss[(2, 4, 8).index(b)] for loss, b in zip(losses, ways, strict=True))

    for ways in itertools.product((2, 4, 8), repeat=len(layers)):
        if sum(n * b // 8 for n, b in zip(weights, ways, strict=True)) <= budget:
            assert lost(chosen) <= lost(ways)
    assert sum(n * b // 8 for n, b in zip(weights, chosen, strict=True)) <= budget


def test_the_reader_s_gradient_is_the_package_s():
    numbers, grad = (-2.0, -1.0, 0.4, 2.6, 3.0, 3.4), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    x = Tensor(np.array(numbers, np.float32), requires_grad=True)
    FakeQuantize.apply(x, -1, 3).backward(Tensor(np.array(grad, np.float32)))
    assert x.grad.data.tolist() == solved("straight_through")(numbers, grad, -1, 3)
