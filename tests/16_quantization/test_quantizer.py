"""A model is quantized as a whole: it keeps its accuracy, stays in whole numbers, and the original stays as it was."""

import copy
from functools import partial

import numpy as np
import pytest

import tinytorch
from tests.states import assert_same_state, state_of
from tinytorch import Tensor, nn
from tinytorch.kernels import int8
from tinytorch.quantization import (
    INT8Quantizer,
    MinMaxObserver,
    MSEObserver,
    PercentileObserver,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedPool2d,
)
from tinytorch.quantization.blocks import split
from tinytorch.zoo.evaluation import accuracy

RNG = np.random.default_rng(0)


def test_eight_bits_lose_no_more_than_a_tenth_of_a_point(cnn, quantized, test_images):
    assert abs(accuracy(quantized, test_images) - accuracy(cnn, test_images)) <= 0.001


@pytest.mark.parametrize(("bits", "most"), [(4, 0.010), (3, 0.06), (2, 0.60)])
def test_fewer_bits_lose_no_more_than_the_design_says(cnn, calibration_images, test_images, bits, most):
    quantizer = INT8Quantizer(MSEObserver, weight_observer=MSEObserver, weight_bits=bits)
    model = quantizer.calibrate(cnn, calibration_images).convert(cnn)
    assert accuracy(cnn, test_images) - accuracy(model, test_images) <= most


def test_all_between_the_image_and_the_logits_is_whole_numbers(quantized):
    assert [type(layer) for layer in quantized.layers] == [QuantizedConv2d] * 3 + [QuantizedLinear] * 2
    assert len(quantized._parts) == 1
    for layer in quantized.layers:
        assert layer.weight.dtype == np.int8
        assert layer.bias.dtype == np.int32
    assert [layer.qparams is None for layer in quantized.layers] == [False] * 4 + [True]


def test_the_numbers_that_are_rounded_are_those_that_flow(quantized, calibration_images):
    """Layer by layer with codes in hand, or all in one call: the same logits."""
    x = calibration_images[:20]
    from tinytorch.quantization import QuantizedTensor

    codes = QuantizedTensor.of(x, quantized.layers[0].input_qparams)
    for layer in quantized.layers:
        if isinstance(layer, QuantizedLinear) and len(codes.shape) == 4:
            codes = QuantizedTensor(codes.codes.reshape(len(x), -1), codes.qparams)
        codes = layer(codes)
    np.testing.assert_array_equal(codes.data, quantized(x).data)


@pytest.mark.parametrize("backend", ["naive", "numpy"])
def test_every_backend_gives_the_same_logits(quantized, calibration_images, backend):
    x = calibration_images[: 1 if backend == "naive" else 50]
    with tinytorch.backend("numba"):
        expected = quantized(Tensor(x)).data
    with tinytorch.backend(backend):
        np.testing.assert_array_equal(quantized(Tensor(x)).data, expected)


def test_the_original_is_left_as_it_was(cnn, calibration_images):
    model = copy.deepcopy(cnn).train()
    model[3].eval()
    before = state_of(model)
    result = INT8Quantizer().calibrate(model, calibration_images[:20]).convert(model)
    assert_same_state(before, state_of(model))
    shared = [a for a in model.state_dict().values() for b in result.state_dict().values() if np.shares_memory(a, b)]
    assert shared == []


def test_calibration_does_not_depend_on_how_the_data_is_cut(cnn, calibration_images):
    x = calibration_images[:50]
    whole = INT8Quantizer(MSEObserver).calibrate(cnn, x, batch_size=50)
    for data, size in ((x, 7), (Tensor(x), 64), (iter([x[:20], Tensor(x[20:])]), 1)):
        other = INT8Quantizer(MSEObserver).calibrate(cnn, data, batch_size=size)
        for a, b in zip(whole._seen, other._seen, strict=True):
            assert a.scale == pytest.approx(b.scale, rel=1e-5)  # a product of matrices may round otherwise
            assert a.zero_point == b.zero_point


def test_scales_do_not_depend_on_the_last_digits_of_float32():
    """Another processor, or NumPy, adds in another order: the model in whole numbers is the same for all that."""
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, rng=RNG), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 5, rng=RNG)
    )
    found = []
    for backend in ("numpy", "numba"):
        with tinytorch.backend(backend):
            found.append(INT8Quantizer(correct_bias=False).calibrate(model, X).convert(model))
    a, b = ([layer.qparams for layer in each.layers] for each in found)
    assert a == b
    for scale, _, _ in a[:-1]:
        assert float(scale * 2**10).hex().rstrip("0").count("p") <= 1
        assert np.float32(scale) == scale
    np.testing.assert_array_equal(found[0](X).data, found[1](X).data)


def network(*between, flat=True):
    layers = [nn.Conv2d(2, 6, 3, padding=1, rng=RNG), *between]
    return nn.Sequential(*layers, *([nn.Flatten(), nn.Linear(6 * 16, 5, rng=RNG)] if flat else []))


X = np.random.default_rng(1).normal(size=(40, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(
    "model",
    [
        network(nn.ReLU(), nn.MaxPool2d(2)),
        network(nn.MaxPool2d(2), nn.ReLU()),
        network(nn.MaxPool2d(2)),
        network(nn.AvgPool2d(2), nn.Dropout(0.5)),
        network(nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(24, 96)),
        nn.Sequential(network(nn.ReLU(), flat=False), nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), nn.Linear(96, 5)),
        nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.ReLU(), nn.Linear(9, 3)),
    ],
    ids=range(7),
)  # fmt: skip
def test_models_of_many_kinds_come_out_near_themselves(model):
    with tinytorch.no_grad():
        expected = model.eval()(Tensor(X)).data
    result = INT8Quantizer().calibrate(model, X).convert(model)
    found = result(X).data
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    with tinytorch.backend("numpy"):
        np.testing.assert_array_equal(result(X).data, found)


def test_a_model_takes_images_of_any_size_that_its_layers_take():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, rng=RNG), nn.ReLU(), nn.Conv2d(4, 3, 3, rng=RNG), nn.ReLU(), nn.MaxPool2d(2)
    )
    model = nn.Sequential(model, nn.AvgPool2d(1), nn.GELU())
    result = INT8Quantizer(unsupported="float").calibrate(model, X).convert(model)
    assert result(X).shape == (40, 3, 2, 2)
    assert result(np.zeros((1, 2, 12, 10), np.float32)).shape == (1, 3, 4, 3)


def test_what_cannot_be_quantized_is_named_or_left_in_float():
    model = network(nn.GELU(), nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"GELU\(\) at '1' cannot be quantized there: codes go through Conv2d"):
        INT8Quantizer().calibrate(model, X)
    result = INT8Quantizer(unsupported="float").calibrate(model, X).convert(model)
    assert [type(layer).__name__ for layer in result.layers] == [
        "QuantizedConv2d", "GELU", "QuantizedPool2d", "QuantizedLinear",
    ]  # fmt: skip
    assert result.layers[1] is not model[1]
    assert (model[1].training, result.layers[1].training) == (True, False)
    with tinytorch.no_grad():
        expected = model.eval()(Tensor(X)).data
    assert np.abs(result(X).data - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "in an nn.Sequential only, not in a Linear"),
        (nn.Sequential(nn.Sequential(nn.ReLU())), r"ReLU\(\) at '0.0' cannot be quantized there"),
        (nn.Sequential(nn.Flatten(), nn.Dropout(0.1)), "nothing to quantize"),
        (nn.GPT(5, 8, 1, 2, 4), "not in a GPT: wrap its layers in one"),
    ],
)
def test_models_that_cannot_be_quantized_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        split(model)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X[:0], ValueError, "there is no calibration data"),
        ([], ValueError, "there is no calibration data"),
        (
            np.where(np.arange(8) == 3, np.float32(np.nan), X),
            ValueError,
            "the calibration data, batch 0: x is NaN or infinite at 640",
        ),
        ([X, np.full_like(X, np.inf)], ValueError, "the calibration data, batch 1: "),
        (X.astype(np.float64), TypeError, "has to be float32, as the model's inputs are, not float64"),
    ],
)
def test_calibration_data_that_is_wrong_is_named_and_changes_nothing(data, error, message):
    model = network(nn.ReLU(), nn.MaxPool2d(2))
    quantizer = INT8Quantizer().calibrate(model, X)
    before, state = quantizer._seen, state_of(model)
    with pytest.raises(error, match=message):
        quantizer.calibrate(model, data)
    assert quantizer._seen == before
    assert_same_state(state, state_of(model))
    quantizer.convert(model)


def test_numbers_that_overflow_inside_the_model_are_named_with_the_layer():
    model = network(nn.ReLU(), nn.MaxPool2d(2))
    model[0].weight.data[0, 0, 0, 0] = np.float32(3e38)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="what comes out of Conv2d at '0', batch 0: "):
        INT8Quantizer().calibrate(model, 1e6 * np.abs(X))


def test_a_model_that_was_not_calibrated_is_refused():
    model = network(nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(RuntimeError, match="this model was not calibrated: call calibrate"):
        INT8Quantizer().convert(model)
    with pytest.raises(RuntimeError, match="this model was not calibrated"):
        INT8Quantizer().calibrate(model, X).convert(copy.deepcopy(model))


def test_a_weight_that_is_nan_is_named_with_its_layer():
    model = network(nn.ReLU(), nn.MaxPool2d(2))
    quantizer = INT8Quantizer().calibrate(model, X)
    model[4].weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match="Linear at '4': x is NaN or infinite at 1 of 480 places"):
        quantizer.convert(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "bits must be a whole number from 2 to 8, got 9"),
        ({"weight_bits": 1}, "got 1"),
        ({"weight_bits": {"0": 1}}, "got 1"),
        ({"unsupported": "skip"}, 'unsupported must be "error" or "float"'),
        ({"observer": partial(PercentileObserver, percentile=0)}, "percentile"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        INT8Quantizer(**options).calibrate(network(nn.ReLU(), nn.MaxPool2d(2)), X)


def test_bits_can_be_given_for_single_layers(cnn, calibration_images):
    model = INT8Quantizer(weight_bits={"0": 2, "13": 4}).calibrate(cnn, calibration_images[:20]).convert(cnn)
    assert [layer.weight_bits for layer in model.layers] == [2, 8, 8, 4, 8]
    assert np.abs(model.layers[0].weight).max() == 1
    quantizer = INT8Quantizer(weight_bits={"1": 2}).calibrate(cnn, calibration_images[:20])
    with pytest.raises(
        ValueError, match=r"weight_bits names \['1'\], but the layers are \['0', '4', '8', '13', '15'\]"
    ):
        quantizer.convert(cnn)


def test_inputs_that_a_quantized_model_does_not_take_are_named(quantized):
    with pytest.raises(TypeError, match="takes float32 and rounds it to codes itself, got float64"):
        quantized(np.zeros((1, 1, 28, 28)))
    with pytest.raises(ValueError, match=r"takes \(1, H, W\), not \(2, 28, 28\)"):
        quantized(np.zeros((1, 2, 28, 28), np.float32))
    linear = nn.Sequential(nn.Linear(784, 3, rng=np.random.default_rng(0)))
    vectors = np.ones((2, 784), np.float32)
    of_vectors = INT8Quantizer().calibrate(linear, vectors).convert(linear)
    for name in ("naive", "numpy", "numba"):
        with (
            tinytorch.backend(name),
            pytest.raises(ValueError, match=r"not \(1, 784\): reshape to \(N, 784\)"),
        ):
            of_vectors(vectors[:, None])
    with pytest.raises(ValueError, match="holds 1 NaN"):
        quantized(np.where(np.arange(784).reshape(1, 1, 28, 28) == 5, np.float32(np.nan), np.float32(0)))
    with pytest.raises(RuntimeError, match="cannot be trained"):
        quantized.train()
    assert quantized.eval() is quantized


def test_pooling_layers_of_their_own_become_pooling_of_codes():
    model = network(nn.ReLU(), nn.AvgPool2d(2))
    result = INT8Quantizer(MinMaxObserver).calibrate(model, X).convert(model)
    assert isinstance(result.layers[1], QuantizedPool2d)
    assert isinstance(result.layers[1].spec(), int8.Pooling)
    assert result.layers[1].qparams == result.layers[0].qparams
