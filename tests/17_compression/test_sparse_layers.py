"""SparseLinear and SparseConv2d: what the dense layers compute, without their zeros."""

import numpy as np
import pytest

from tinytorch import Tensor, backend, nn
from tinytorch.compression import MagnitudePruner, SparseConv2d, SparseLinear

RNG = np.random.default_rng(6)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def pruned(layer, sparsity=0.8):
    MagnitudePruner(sparsity).prepare(layer).finalize()
    return layer


def linear(bias=True):
    return pruned(nn.Linear(40, 24, bias, RNG))


def convolution(stride=1, padding=1, bias=True):
    return pruned(nn.Conv2d(5, 8, 3, stride, padding, bias, RNG))


LAYERS = {
    "linear": (linear, SparseLinear, (6, 40)),
    "linear on sequences": (linear, SparseLinear, (3, 4, 40)),
    "linear without bias": (lambda: linear(False), SparseLinear, (6, 40)),
    "convolution": (convolution, SparseConv2d, (3, 5, 9, 7)),
    "convolution by two": (lambda: convolution(2, 2, False), SparseConv2d, (3, 5, 9, 8)),
}


@pytest.mark.parametrize(("make", "kind", "shape"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("name", ["naive", "numpy", "numba"])
def test_outputs_and_input_gradients_are_the_dense_layers(make, kind, shape, name):
    dense, x = make(), normal(*shape)
    sparse = kind.from_dense(dense)
    results = []
    for layer in (dense, sparse):
        with backend(name):
            inputs = Tensor(x, requires_grad=True)
            out = layer(inputs)
            (out * out).sum().backward()
        results.append((out.data, inputs.grad.data))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "kind", "shape"), LAYERS.values(), ids=LAYERS)
def test_there_and_back_is_the_same_layer(make, kind, shape):
    dense = make()
    back = kind.from_dense(dense).to_dense()
    assert repr(back) == repr(dense)
    for name, array in dense.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], array)


def test_bytes_are_those_of_values_indices_pointers_and_bias():
    layer = SparseLinear.from_dense(linear())
    kept = round(0.2 * 40 * 24)
    assert layer.nbytes == kept * (4 + 4) + 25 * 4 + 24 * 4
    assert layer.sparsity == pytest.approx(0.8)
    assert layer.num_parameters() == 0


def test_the_dense_layer_is_left_alone():
    dense = linear()
    sparse = SparseLinear.from_dense(dense)
    before = sparse(Tensor(np.ones((1, 40), np.float32))).data
    dense.weight.data[:] = 0
    np.testing.assert_array_equal(sparse(Tensor(np.ones((1, 40), np.float32))).data, before)


def test_weights_are_fixed():
    layer = SparseLinear.from_dense(linear())
    with pytest.raises(RuntimeError, match="load the dense layer"):
        layer.load_state_dict(layer.state_dict())
    with pytest.raises(ValueError, match="read-only"):
        layer.values[0] = 1


def test_layers_say_what_they_are():
    assert repr(SparseLinear.from_dense(linear())) == (
        "SparseLinear(in_features=40, out_features=24, bias=True, sparsity=80.00%)"
    )
    assert "stride=2, padding=2, bias=False, sparsity=80" in repr(SparseConv2d.from_dense(convolution(2, 2, False)))


def test_inputs_that_do_not_fit_are_named():
    layer, conv = SparseLinear.from_dense(linear()), SparseConv2d.from_dense(convolution(padding=0))
    with pytest.raises(ValueError, match="40 features"):
        layer(Tensor(normal(2, 41)))
    with pytest.raises(TypeError, match="float64"):
        layer(Tensor(np.zeros((2, 40))))
    with pytest.raises(ValueError, match="takes 5 channels"):
        conv(Tensor(normal(2, 4, 9, 9)))
    with pytest.raises(ValueError, match="3 x 3 does not fit"):
        conv(Tensor(normal(2, 5, 2, 9)))


@pytest.mark.parametrize(("make", "kind"), [(linear, SparseLinear), (convolution, SparseConv2d)])
def test_weights_that_are_no_numbers_are_refused(make, kind):
    dense = make()
    dense.weight.data.reshape(-1)[:2] = np.nan, np.inf
    with pytest.raises(ValueError, match="is NaN or infinite at 2 of"):
        kind.from_dense(dense)


def test_other_values_and_another_bias_count_from_the_next_call_on():
    layer, x = SparseLinear.from_dense(linear()), Tensor(np.eye(40, dtype=np.float32))
    layer(x)
    given = np.ones(24, np.float32)
    layer.values, layer.bias = 2 * layer.values, given
    given[:] = 9  # a copy was taken
    np.testing.assert_allclose(layer(x).data, layer.rows.to_dense().T + 1, rtol=1e-6)
