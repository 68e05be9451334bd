"""A plan computes what the model computes in evaluation, or says why it cannot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.models import in_evaluation
from tests.threads import assert_the_same_in_threads
from tinytorch import nn, zoo
from tinytorch.acceleration import Plan

few = settings(max_examples=25)


@st.composite
def networks(draw):
    """A network of one to three convolutions with what may follow them, and linear layers, or a part of that."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, height, width = draw(st.integers(1, 5)), draw(st.integers(5, 20)), draw(st.integers(5, 20))
    shape, layers = (channels, height, width), []
    for _ in range(draw(st.integers(0, 3))):
        kernel, stride, padding = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 3))
        out = draw(st.integers(1, 70))
        sizes = [(n + 2 * padding - kernel) // stride + 1 for n in (height, width)]
        if min(sizes) < 1:
            break
        layers.append(nn.Conv2d(channels, out, kernel, stride, padding, bias=draw(st.booleans()), rng=rng))
        channels, (height, width) = out, sizes
        if draw(st.booleans()):
            norm = nn.BatchNorm2d(out)
            norm.weight.data[:], norm.bias.data[:] = rng.normal(size=(2, out))
            norm.running_mean[:], norm.running_var[:] = rng.normal(size=out), rng.uniform(0.5, 2.0, out)
            layers.append(norm)
        if draw(st.booleans()):
            layers.append(nn.ReLU())
        pool = draw(st.integers(1, 3))
        if 1 < pool <= min(height, width):
            layers.append(draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(pool))
            height, width = height // pool, width // pool
    if not layers or draw(st.booleans()):
        layers.append(nn.Flatten())
        features = channels * height * width
        for _ in range(draw(st.integers(0 if len(layers) > 1 else 1, 2))):
            out = draw(st.integers(1, 70))
            layers += [nn.Linear(features, out, rng=rng), nn.Dropout(0.5)]
            layers += [nn.ReLU()] if draw(st.booleans()) else []
            features = out
    return nn.Sequential(*layers), rng.standard_normal((draw(st.integers(0, 9)), *shape), np.float32)


@few
@given(networks(), st.integers(1, 3))
def test_a_plan_equals_the_model_in_evaluation(case, threads):
    model, x = case
    expected = in_evaluation(model, x)
    plan = Plan(model, x.shape[1:])
    try:
        tinytorch.set_num_threads(threads)
        result = plan(x)
    finally:
        tinytorch.set_num_threads(1)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-4 * max(1.0, np.abs(expected).max(initial=0)))
    np.testing.assert_array_equal(plan(x), result)  # nothing is left in its memory, and threads change no bit


def test_the_shipped_cnn_gives_the_same_classes_as_layer_by_layer():
    model = zoo.load("reference_cnn")
    images = tinytorch.data.fashion_mnist("test").images[:500]
    plan = Plan(model, (1, 28, 28))
    np.testing.assert_array_equal(plan(images).argmax(1), in_evaluation(model, images).argmax(1))


def test_a_network_of_linear_layers_alone():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(20, 70, rng=rng), nn.ReLU(), nn.Sequential(nn.Linear(70, 3, rng=rng)))
    x = rng.standard_normal((5, 20), np.float32)
    np.testing.assert_allclose(Plan(model, (20,))(x), in_evaluation(model, x), atol=1e-5)


def test_relu_behind_the_largest_number_is_relu_before_it():
    rng = np.random.default_rng(0)
    conv, pool, relu = nn.Conv2d(2, 5, 3, rng=rng), nn.MaxPool2d(2), nn.ReLU()
    x = rng.standard_normal((3, 2, 9, 8), np.float32)
    late, early = (Plan(nn.Sequential(conv, *rest), (2, 9, 8))(x) for rest in ((pool, relu), (relu, pool)))
    np.testing.assert_array_equal(late, early)
    with pytest.raises(ValueError, match=r"cannot hold ReLU\(\) at '2'"):  # the ReLU of a mean is none of the numbers
        Plan(nn.Sequential(conv, nn.AvgPool2d(2), relu), (2, 9, 8))


def test_a_nan_comes_through_pooling_and_relu():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.MaxPool2d(2))
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 1] = np.nan
    assert np.isnan(Plan(model, (1, 4, 4))(x)[0, :, 0, 0]).all()
    assert np.isfinite(Plan(model, (1, 4, 4))(x)[0, :, 1, 1]).all()


def test_a_plan_keeps_the_weights_it_was_made_of():
    model = nn.Sequential(nn.Linear(4, 2))
    x = np.ones((1, 4), np.float32)
    plan = Plan(model, (4,))
    before = plan(x)
    model.modules()
    next(iter(model.parameters())).data += 1.0
    np.testing.assert_array_equal(plan(x), before)


def test_images_of_any_strides_are_taken():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    x = rng.standard_normal((8, 9, 2, 6), np.float32)[::2, ::-1].transpose(0, 2, 3, 1)
    plan = Plan(model, x.shape[1:])
    np.testing.assert_array_equal(plan(x), plan(np.ascontiguousarray(x)))


def test_threads_that_share_a_plan_do_not_share_its_memory():
    rng = np.random.default_rng(0)
    plan = Plan(zoo.reference_cnn(rng), (1, 28, 28))
    batches = [rng.standard_normal((20, 1, 28, 28), np.float32) for _ in range(4)]
    assert_the_same_in_threads(plan, batches)


CONV = nn.Conv2d(1, 2, 3, padding=1)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Linear(2, 2), (2,), "in an nn.Sequential only, not in a Linear"),
        (nn.Sequential(), (2,), "a convolution or a linear layer"),
        (nn.Sequential(nn.Flatten()), (2, 1, 1), "a convolution or a linear layer"),
        (nn.Sequential(CONV, nn.Sequential(nn.GELU())), (1, 8, 8), r"cannot hold GELU\(\) at '.*\.0'"),
        (nn.Sequential(nn.ReLU(), CONV), (1, 8, 8), "cannot hold ReLU"),
        (nn.Sequential(CONV, nn.MaxPool2d(3, 2)), (1, 8, 8), r"cannot hold MaxPool2d\(.*stride=2\) at '1'"),
        (nn.Sequential(CONV), (3, 8, 8), r"takes \(1, H, W\), not \(3, 8, 8\)"),
        (nn.Sequential(nn.Conv2d(1, 2, 9)), (1, 8, 8), "leaves nothing of images of 8 x 8"),
        (nn.Sequential(CONV, nn.Linear(128, 2)), (1, 8, 8), r"at '1' takes \(128,\), not \(2, 8, 8\)"),
        (nn.Sequential(CONV, nn.Flatten(), nn.Linear(9, 2)), (1, 8, 8), r"takes \(9,\), not \(128,\)"),
    ],
)
def test_a_network_that_does_not_fit_is_named_with_its_layer(model, shape, message):
    with pytest.raises(ValueError, match=message):
        Plan(model, shape)


@pytest.mark.parametrize(
    "x", [np.zeros((1, 1, 8, 9), np.float32), np.zeros((1, 1, 8, 8)), np.zeros((1, 8, 8), np.float32)]
)
def test_inputs_of_another_shape_or_dtype_are_named(x):
    with pytest.raises(ValueError, match=r"this plan is for float32 \(N, 1, 8, 8\), got"):
        Plan(nn.Sequential(CONV), (1, 8, 8))(x)
