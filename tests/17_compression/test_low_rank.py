"""Two thin layers are as near to one as their rank allows, and smaller."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tinytorch import Tensor, nn, zoo
from tinytorch.compression import factorize, factorize_linear
from tinytorch.quantization import INT8Quantizer

few = settings(max_examples=40)
sizes = st.integers(1, 12)


def product(pair):
    return pair[1].weight.data.astype(float) @ pair[0].weight.data.astype(float)


@few
@given(st.integers(0, 2**32 - 1), sizes, sizes, st.data())
def test_the_error_is_that_of_the_singular_values_left_out(seed, inputs, outputs, data):
    linear = nn.Linear(inputs, outputs, rng=np.random.default_rng(seed))
    rank = data.draw(st.integers(1, min(inputs, outputs)))
    before = linear.weight.data.copy()
    pair = factorize_linear(linear, rank)
    assert (pair[0].out_features, pair[0].bias, pair[1].out_features) == (rank, None, outputs)
    left_out = np.linalg.svd(before.astype(float), compute_uv=False)[rank:]
    lost = ((product(pair) - before) ** 2).sum()
    assert lost == pytest.approx((left_out**2).sum(), rel=1e-4, abs=1e-10)
    np.testing.assert_array_equal(linear.weight.data, before)


def test_at_full_rank_nothing_is_lost():
    linear = nn.Linear(9, 5, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((4, 9)).astype(np.float32)
    with tinytorch.no_grad():
        np.testing.assert_allclose(factorize_linear(linear, 5)(Tensor(x)).data, linear(Tensor(x)).data, atol=1e-5)


@pytest.mark.parametrize("energy", [0.5, 0.8, 0.9])
def test_a_model_keeps_the_share_that_was_asked_for_and_has_fewer_parameters(energy):
    model = zoo.load("reference_cnn")
    thin = factorize(model, energy)
    assert thin.num_parameters() < model.num_parameters()
    pair = [layer for layer in thin if isinstance(layer, nn.Linear)][:2]
    weight = model[13].weight.data
    kept = 1 - ((product(pair) - weight) ** 2).sum() / (weight.astype(float) ** 2).sum()
    assert kept >= energy - 1e-6
    smaller = factorize_linear(model[13], pair[0].out_features - 1)
    assert 1 - ((product(smaller) - weight) ** 2).sum() / (weight.astype(float) ** 2).sum() < energy
    assert not any(np.shares_memory(a, b) for a in thin.state_dict().values() for b in model.state_dict().values())


def test_layers_that_would_grow_are_left_as_they_are():
    model = nn.Sequential(nn.Linear(4, 4, rng=np.random.default_rng(0)), nn.ReLU())
    assert [type(layer) for layer in factorize(model, 1.0)] == [nn.Linear, nn.ReLU]


def test_a_thin_model_can_be_quantized():
    images = tinytorch.data.fashion_mnist("test").images[:64]
    thin = factorize(zoo.load("reference_cnn"), 0.9)
    whole = INT8Quantizer().calibrate(thin, images).convert(thin)
    with tinytorch.no_grad():
        expected = thin(Tensor(images)).data
    assert (whole(images).data.argmax(1) == expected.argmax(1)).mean() > 0.9


def spoiled():
    model = nn.Sequential(nn.Linear(3, 3, rng=np.random.default_rng(0)))
    model[0].weight.data[0, 0] = np.nan
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: factorize_linear(nn.Linear(3, 5), 0), "the rank of 5 x 3 weights is 1 to 3, not 0"),
        (lambda: factorize_linear(nn.Linear(3, 5), 4), "not 4"),
        (lambda: factorize_linear(spoiled()[0], 1), "the weight is NaN or infinite at 1 of"),
        (lambda: factorize(spoiled(), 0.9), "the layer at '0' is NaN or infinite at 1 of"),
        (lambda: factorize(nn.Sequential(), 0.0), "above 0 and up to 1, got 0.0"),
        (lambda: factorize(nn.Linear(2, 2), 0.5), "this is a Linear"),
    ],
)
def test_what_cannot_be_factorized_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
