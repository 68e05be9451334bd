"""A model without its smallest filters computes what the model computes with those filters silenced."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.models import in_evaluation
from tinytorch import nn, zoo
from tinytorch.acceleration import Plan
from tinytorch.compression import prune_filters
from tinytorch.quantization import INT8Quantizer

few = settings(max_examples=40)


def randomized(model, rng):
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean[:], layer.running_var[:] = rng.normal(size=(1, layer.num_features)), 1.5
            layer.weight.data[:], layer.bias.data[:] = rng.uniform(0.5, 2, (2, layer.num_features))
    return model


def network(rng, bias=True):
    return randomized(
        nn.Sequential(
            nn.Conv2d(2, 7, 3, padding=1, bias=bias, rng=rng), nn.BatchNorm2d(7), nn.ReLU(), nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(7, 5, 3, rng=rng), nn.GELU(), nn.Dropout(0.5)),
            nn.Conv2d(5, 6, 2, rng=rng), nn.BatchNorm2d(6), nn.AvgPool2d(1), nn.Flatten(), nn.Linear(6 * 9, 3, rng=rng),
        ), rng,
    )  # fmt: skip


def silenced(model, ratio):
    """Set the smallest filters of each convolution to zero, and what batch norm makes of them; in place."""
    layers = [layer for _, layer in model.named_layers()]
    for layer, following in pairwise(layers):
        if isinstance(layer, nn.Conv2d):
            norms = np.abs(layer.weight.data).sum(axis=(1, 2, 3))
            gone = np.argsort(norms, kind="stable")[: min(round(ratio * len(norms)), len(norms) - 1)]
            layer.weight.data[gone] = 0
            if layer.bias is not None:
                layer.bias.data[gone] = 0
            if isinstance(following, nn.BatchNorm2d):
                following.weight.data[gone] = following.bias.data[gone] = 0
    return model


@few
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.booleans())
def test_removing_a_filter_is_the_same_as_silencing_it(seed, ratio, bias):
    model = network(np.random.default_rng(seed), bias)
    x = np.random.default_rng(seed).standard_normal((3, 2, 12, 12)).astype(np.float32)
    small = prune_filters(model, ratio)
    expected = in_evaluation(silenced(network(np.random.default_rng(seed), bias), ratio), x)
    np.testing.assert_allclose(in_evaluation(small, x), expected, atol=1e-4)


def test_the_model_is_physically_smaller_and_the_original_is_unchanged():
    model = zoo.load("reference_cnn")
    before = {path: a.copy() for path, a in model.state_dict().items()}
    small = prune_filters(model, 0.5)
    assert [layer.weight.shape for layer in small if isinstance(layer, nn.Conv2d)] == [
        (8, 1, 3, 3), (16, 8, 3, 3), (32, 16, 3, 3),
    ]  # fmt: skip
    assert small[13].weight.shape == (128, 32 * 9)
    convolutions = 8 * 9 + 16 * 8 * 9 + 32 * 16 * 9 + 3 * (8 + 16 + 32)  # weights, biases, batch norm
    assert small.num_parameters() == convolutions + 128 * (32 * 9 + 1) + 10 * 129
    for path, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[path])
        assert not any(np.shares_memory(array, other) for other in small.state_dict().values())


def test_the_smaller_model_can_be_compiled_and_quantized():
    small = prune_filters(zoo.load("reference_cnn"), 0.3)
    images = tinytorch.data.fashion_mnist("test").images[:64]
    expected = in_evaluation(small, images)
    np.testing.assert_allclose(Plan(small, (1, 28, 28))(images), expected, atol=1e-4)
    whole = INT8Quantizer().calibrate(small, images).convert(small)
    assert (whole(images).data.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_the_output_s_filters_and_excluded_ones_stay():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, rng=rng), nn.ReLU(), nn.Conv2d(8, 6, 3, rng=rng))
    assert [layer.out_channels for layer in prune_filters(model, 0.5) if isinstance(layer, nn.Conv2d)] == [4, 6]
    kept = prune_filters(model, 0.5, exclude=["0"])
    assert [layer.out_channels for layer in kept if isinstance(layer, nn.Conv2d)] == [8, 6]


RNG = np.random.default_rng(0)
CONV = nn.Conv2d(2, 2, 3, padding=1, rng=RNG)


class Residual(nn.Module):
    """x + conv(x): what reads the sum reads two sets of channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, rng=RNG)

    def forward(self, x):
        return x + self.conv(x)


def with_nan():
    conv = nn.Conv2d(2, 2, 3, rng=RNG)
    conv.weight.data[0, 0, 0, 0] = np.nan
    return nn.Sequential(conv, nn.ReLU())


@pytest.mark.parametrize(
    ("model", "ratio", "options", "message"),
    [
        (nn.Sequential(CONV), 1.0, {}, "1 excluded, got 1.0"),
        (nn.Sequential(CONV), -0.1, {}, "got -0.1"),
        (CONV, 0.5, {}, "this is a Conv2d"),
        (nn.Sequential(CONV, nn.ReLU(), CONV), 0.5, {}, "used twice, at '0' and '2'"),
        (nn.Sequential(CONV, nn.Sequential(Residual())), 0.5, {}, r"at '1.0': channels cannot be followed"),
        (nn.Sequential(CONV, nn.Flatten(), nn.Linear(9, 2)), 0.5, {}, "at '2' has 9 inputs, no multiple of 2"),
        (with_nan(), 0.5, {}, "the layer at '0' is NaN or infinite at"),
        (nn.Sequential(CONV), 0.5, {"exclude": ["3"]}, r"exclude names \['3'\], but the convolutions are \['0'\]"),
    ],
)
def test_what_cannot_be_done_is_named(model, ratio, options, message):
    with pytest.raises(ValueError, match=message):
        prune_filters(model, ratio, **options)
