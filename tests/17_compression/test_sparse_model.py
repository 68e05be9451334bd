"""to_sparse: whole networks without their zeros compute what the pruned model computes."""

import numpy as np
import pytest

from tinytorch import Tensor, backend, data, nn, zoo
from tinytorch.compression import BreakEven, MagnitudePruner, measure_sparsity, to_sparse
from tinytorch.zoo.evaluation import accuracy

RNG = np.random.default_rng(2)


def pruned_cnn(sparsity=0.9):
    model = zoo.load("reference_cnn")
    MagnitudePruner(sparsity).prepare(model).finalize()
    return model


def odd_network():
    """Every kind of layer, in places where some stay as they are."""
    layers = [
        nn.Conv2d(2, 5, 3, padding=1, rng=RNG), nn.BatchNorm2d(5), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(5, 4, 3, 2, rng=RNG),
        nn.GELU(), nn.MaxPool2d(3, 1), nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 3 * 1, 9, rng=RNG)),
        nn.GELU(), nn.Linear(9, 6, False, rng=RNG), nn.ReLU(), nn.Linear(6, 3, rng=RNG),
    ]  # fmt: skip
    model = nn.Sequential(*layers)
    model.train()
    model(Tensor(RNG.standard_normal((8, 2, 22, 14)).astype(np.float32)))  # gives batch norm something to do
    model.eval()
    MagnitudePruner(0.6).prepare(model).finalize()
    return model


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("images", [1, 33])
def test_the_reference_cnn_gives_the_same_scores(name, images):
    model = pruned_cnn()
    x = data.fashion_mnist("test").images[:images]
    with backend(name):
        np.testing.assert_allclose(to_sparse(model)(x).data, model(Tensor(x)).data, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["naive", "numpy", "numba"])
def test_layers_that_cannot_be_sparse_stay_between_the_others(name):
    model, x = odd_network(), RNG.standard_normal((3, 2, 22, 14)).astype(np.float32)
    with backend(name):
        np.testing.assert_allclose(to_sparse(model)(x).data, model(Tensor(x)).data, rtol=1e-4, atol=1e-4)


def test_relu_behind_a_max_pooling_is_done_where_the_sums_are_written():
    model = nn.Sequential(nn.Conv2d(2, 5, 3, rng=RNG), nn.MaxPool2d(2), nn.ReLU())
    x = RNG.standard_normal((3, 2, 8, 9)).astype(np.float32)
    sparse = to_sparse(model, BreakEven(0, 0))
    assert len(sparse.parts) == 1
    np.testing.assert_allclose(sparse(x).data, model(Tensor(x)).data, rtol=1e-4, atol=1e-5)


def test_right_answers_on_all_test_images_are_those_of_the_pruned_model():
    model = pruned_cnn(0.7)
    images = data.fashion_mnist("test")
    assert abs(accuracy(to_sparse(model), images) - accuracy(model, images)) <= 0.0002  # sums in another order


def test_what_is_stored_is_what_is_not_zero():
    model = pruned_cnn()
    sparse, dense = to_sparse(model, BreakEven(0, 0)), measure_sparsity(model)
    assert [(r.path, r.weights, r.zeros) for r in sparse.report().layers] == [
        (r.path, r.weights, r.zeros) for r in dense.layers
    ]
    outputs = 16 + 32 + 64 + 128 + 10
    assert sparse.nbytes == 8 * (dense.weights - dense.zeros) + 4 * (outputs + 5) + 4 * outputs


def test_layers_with_too_few_zeros_keep_them_and_the_report_says_so():
    model = pruned_cnn()
    first, *others = measure_sparsity(model).layers
    assert first.sparsity < 0.6 < min(layer.sparsity for layer in others)
    sparse = to_sparse(model, BreakEven(linear=0.1, convolution=0.6))
    assert [layer.kind for layer in sparse.report().layers] == [
        "Convolution, dense", "Convolution, sparse", "Convolution, sparse", "Linear, sparse", "Linear, sparse"
    ]  # fmt: skip
    assert "dense" in str(sparse.report())
    all_sparse = to_sparse(model, BreakEven(0, 0))
    assert sparse.nbytes - all_sparse.nbytes == 4 * first.weights - (8 * (first.weights - first.zeros) + 4 * 17)
    x = data.fashion_mnist("test").images[:20]
    np.testing.assert_allclose(sparse(x).data, all_sparse(x).data, rtol=1e-4, atol=1e-4)


def test_the_model_is_left_alone():
    model = pruned_cnn()
    x = data.fashion_mnist("test").images[:4]
    sparse = to_sparse(model)
    before = sparse(x).data
    for parameter in model.parameters():
        parameter.data[:] = 0
    np.testing.assert_array_equal(sparse(x).data, before)


def test_what_cannot_be_sparse_is_refused():
    with pytest.raises(ValueError, match="wrap its layers"):
        to_sparse(nn.Linear(3, 3, rng=RNG))
    with pytest.raises(ValueError, match="nothing to make sparse"):
        to_sparse(nn.Sequential(nn.Flatten(), nn.ReLU()))
    model = pruned_cnn()
    next(model.parameters()).data.reshape(-1)[0] = np.nan
    with pytest.raises(ValueError, match="at '0"):
        to_sparse(model)
    with pytest.raises(TypeError, match="float64"):
        to_sparse(pruned_cnn())(np.zeros((1, 1, 28, 28)))
    with pytest.raises(RuntimeError, match="while a pruner holds"):
        to_sparse(pruned_cnn()).train()


def test_a_linear_layer_behind_one_that_stays_is_sparse_too():
    model = odd_network()
    linear = [layer for layer in to_sparse(model, BreakEven(0, 0)).report().layers if "Linear" in layer.kind]
    assert [layer.path for layer in linear] == ["7.2", "9", "11"]


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (2, 1, 8), (0, 8)])
def test_linear_layers_work_on_the_last_axis_of_whatever_comes(shape):
    layers = [nn.LayerNorm(8), nn.Linear(8, 6, rng=RNG), nn.ReLU(), nn.Linear(6, 3, rng=RNG)]
    model, x = nn.Sequential(*layers).eval(), RNG.standard_normal(shape).astype(np.float32)
    for each in (model, nn.Sequential(*layers[1:]).eval()):
        np.testing.assert_allclose(to_sparse(each)(x).data, each(Tensor(x)).data, rtol=1e-4, atol=1e-5)


def test_images_may_be_flattened_before_the_first_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, rng=RNG)).eval()
    x = RNG.standard_normal((5, 1, 1, 12)).astype(np.float32)
    np.testing.assert_allclose(to_sparse(model)(x).data, model(Tensor(x)).data, rtol=1e-4, atol=1e-5)
