"""Sparse kernels: the three backends agree, what is zero is not even read, and gradients are those of dense layers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.threads import assert_the_same_in_threads
from tinytorch import backend
from tinytorch.kernels import conv, sparse

RNG = np.random.default_rng(17)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def rows(outputs, inputs, sparsity, rng=RNG):
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
    weight[rng.random((outputs, inputs)) < sparsity] = 0
    return sparse.Rows.from_dense(weight)


def in_all_backends(network, x):
    results = {}
    for name in ("naive", "numpy", "numba"):
        with backend(name):
            results[name] = network(x)
    return results


def assert_all_agree(network, x):
    results = in_all_backends(network, x)
    for name, result in results.items():
        assert result.dtype == np.float32, name
        np.testing.assert_allclose(result, results["naive"], rtol=1e-4, atol=1e-4, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 40), inputs=st.integers(1, 70), outputs=st.integers(1, 20),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    bias=st.booleans(), relu=st.booleans(), dense=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_linear_layers_of_any_size_agree(images, inputs, outputs, sparsity, bias, relu, dense, seed):
    rng = np.random.default_rng(seed)
    layer = sparse.Linear(rows(outputs, inputs, sparsity, rng), normal(outputs) if bias else None, relu, dense)
    assert_all_agree(sparse.Network([layer], (inputs,)), normal(images, inputs))


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 18), channels=st.integers(1, 4), outputs=st.integers(1, 5), height=st.integers(5, 12),
    width=st.integers(5, 20), kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=st.integers(0, 2),
    relu=st.booleans(), pool=st.integers(1, 2), mean=st.booleans(), dense=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_convolutions_of_any_size_agree(
    images, channels, outputs, height, width, kernel, stride, padding, relu, pool, mean, dense, seed
):
    rng = np.random.default_rng(seed)
    weights = rows(outputs, channels * kernel**2, 0.7, rng)
    layer = sparse.Convolution(weights, kernel, normal(outputs), stride, padding, relu, pool, mean, dense)
    if min(conv.output_size(size, kernel, stride, padding) for size in (height, width)) < pool:
        with pytest.raises(ValueError, match="leaves nothing"):
            sparse.Network([layer], (channels, height, width))
        return
    assert_all_agree(sparse.Network([layer], (channels, height, width)), normal(images, channels, height, width))


def network(sparsity=0.8):
    layers = [
        sparse.Convolution(rows(6, 9, 0.2), 3, normal(6), padding=1, relu=True, pool=2, dense=True),
        sparse.Convolution(rows(5, 54, sparsity), 3, normal(5), padding=1, relu=True, pool=2, mean=True),
        sparse.Convolution(rows(7, 45, sparsity), 3, None, stride=2),
        sparse.Linear(rows(12, 7 * 2 * 1, sparsity), normal(12), relu=True),
        sparse.Linear(rows(3, 12, sparsity), normal(3)),
    ]
    return sparse.Network(layers, (1, 21, 13))


@pytest.mark.parametrize("images", [1, 5, 16, 37])
def test_whole_networks_agree(images):
    assert_all_agree(network(), normal(images, 1, 21, 13))


def test_blocks_of_inputs_change_nothing():
    """1,500 inputs are more than the L1 cache holds for so many images, with few weights or many."""
    for sparsity in (0.5, 0.95):
        layer = sparse.Linear(rows(9, 1500, sparsity), normal(9))
        net, x = sparse.Network([layer], (1500,)), normal(70, 1500)
        np.testing.assert_allclose(net(x), x @ layer.rows.to_dense().T + layer.bias, rtol=1e-4, atol=1e-4)


def test_what_meets_zeros_only_is_not_read():
    """NaN times zero is NaN: a kernel that multiplies zeros cannot hide it."""
    weight = normal(8, 40)
    weight[:, 7::3] = 0
    x, clean = normal(20, 40), None
    net = sparse.Network([sparse.Linear(sparse.Rows.from_dense(weight))], (40,))
    for name in ("naive", "numpy", "numba"):
        with backend(name):
            clean = net(x)
            spoiled = x.copy()
            spoiled[:, 7::3] = np.nan
            np.testing.assert_array_equal(net(spoiled), clean)
    assert np.isnan(spoiled @ weight.T).all()


def test_a_channel_that_no_weight_looks_at_is_not_read():
    weight = normal(4, 3, 3, 3)
    weight[:, 1] = 0
    layer = sparse.Convolution(sparse.Rows.from_dense(weight.reshape(4, -1)), 3, normal(4), padding=1)
    net, x = sparse.Network([layer], (3, 6, 6)), normal(3, 3, 6, 6)
    spoiled = x.copy()
    spoiled[:, 1] = np.nan
    for result in in_all_backends(net, spoiled).values():
        assert np.isfinite(result).all()


def test_nan_and_infinity_go_where_weights_lead_them():
    net, x = network(0.0), normal(20, 1, 21, 13)
    x[3, 0, 4, 4], x[7, 0, 2, 2] = np.nan, np.inf
    with backend("numba"):
        result = net(x)
    touched = ~np.isfinite(result).all(axis=1)
    assert touched[3]
    assert set(np.flatnonzero(touched)) <= {3, 7}


def test_threads_that_share_a_network_do_not_share_memory():
    assert_the_same_in_threads(network(), [normal(20, 1, 21, 13) for _ in range(3)])


def test_no_images_give_no_results():
    for result in in_all_backends(network(), normal(0, 1, 21, 13)).values():
        assert result.shape == (0, 3)


@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 1, 7), (2, 1, 8), (2, 0, 8), (3, 2, 11), (1, 4, 5)])
def test_the_input_gradient_of_a_convolution_is_the_dense_one(stride, padding, size):
    weight = normal(5, 4, 3, 3) * (RNG.random((5, 4, 3, 3)) < 0.3)
    layer = sparse.Convolution(sparse.Rows.from_dense(weight.reshape(5, -1)), 3, None, stride, padding)
    grad = normal(3, 5, *[conv.output_size(size, 3, stride, padding)] * 2)
    expected = conv.conv2d_input_grad(grad, weight.astype(np.float32), (3, 4, size, size), stride, padding)
    for name in ("naive", "numpy", "numba"):
        with backend(name):
            found = sparse.InputGradient(layer, (4, size, size))(grad)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_input_gradient_of_a_linear_layer_is_the_dense_one():
    layer, grad = sparse.Linear(rows(9, 30, 0.7), normal(9)), normal(6, 9)
    found = sparse.InputGradient(layer, (30,))(grad)
    np.testing.assert_allclose(found, grad @ layer.rows.to_dense(), rtol=1e-4, atol=1e-5)


def test_relu_and_pooling_have_no_gradient_here():
    with pytest.raises(ValueError, match="layers of their own"):
        sparse.InputGradient(sparse.Linear(rows(3, 3, 0), relu=True), (3,))


def test_rows_are_what_they_were_made_of():
    weight = normal(6, 11) * (RNG.random((6, 11)) < 0.4)
    kept = sparse.Rows.from_dense(weight)
    np.testing.assert_array_equal(kept.to_dense(), weight)
    assert kept.nbytes == 8 * int((weight != 0).sum()) + 4 * 7


@pytest.mark.parametrize(
    ("values", "indices", "indptr", "words"),
    [
        (np.ones(2, np.float64), [0, 1], [0, 2], "float32"),
        (np.ones(2, np.float32), [0], [0, 2], "as many indices"),
        (np.ones(2, np.float32), [0, 1], [0, 3], "rise from 0"),
        (np.ones(2, np.float32), [0, 4], [0, 2], r"0 \.\.\. 3"),
        (np.ones(2, np.float32), [1, 0], [0, 2], "have to rise"),
        (np.ones(2, np.float32), [1, 1], [0, 2], "have to rise"),
    ],
)
def test_rows_that_are_none_are_refused(values, indices, indptr, words):
    with pytest.raises(ValueError, match=words):
        sparse.Rows(values, np.array(indices, np.int32), np.array(indptr, np.int32), 4)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="at least one layer"):
        sparse.Network([], (3,))
    with pytest.raises(ValueError, match="layer 1, Linear, takes"):
        sparse.Network([sparse.Linear(rows(4, 3, 0)), sparse.Linear(rows(4, 3, 0))], (3,))
    with pytest.raises(ValueError, match=r"layer 0, Convolution, takes \(2, H, W\)"):
        sparse.Network([sparse.Convolution(rows(4, 18, 0), 3)], (3, 5, 5))
    net = sparse.Network([sparse.Linear(rows(4, 3, 0))], (3,))
    with pytest.raises(ValueError, match="float64"):
        net(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        net(np.zeros((2, 4), np.float32))
