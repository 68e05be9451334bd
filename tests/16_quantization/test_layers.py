"""A layer of whole numbers says nearly what the float layer says, and takes only the codes that it was made for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import in_evaluation
from tinytorch import Tensor, nn
from tinytorch.quantization import (
    MSEObserver,
    QParams,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedModel,
    QuantizedPool2d,
    QuantizedTensor,
    choose_qparams,
    fuse_conv_bn,
)

few = settings(max_examples=25)


def qparams_of(x, bits=8):
    scale, zero_point = choose_qparams(x, bits=bits)
    return QParams(float(scale), int(zero_point), bits)


def error_bound(weight_error, weight, x, x_error):
    """Return how far sums may be off: (w + dw) (x + dx) - w x, with every part at its largest."""
    weights, errors = (np.abs(a).reshape(len(a), -1).sum(axis=1).max() for a in (weight, weight_error))
    return weights * x_error + errors * (np.abs(x).max() + x_error)


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 8]), st.booleans(), st.booleans(), st.sampled_from([1, 2]))
def test_a_convolution_is_off_by_no_more_than_its_roundings(seed, bits, per_channel, relu, pool):
    rng = np.random.default_rng(seed)
    conv, norm = nn.Conv2d(3, 5, 3, padding=1, rng=rng), nn.BatchNorm2d(5)
    norm.weight.data[:], norm.running_mean[:] = rng.uniform(0.5, 2, 5), rng.normal(size=5)
    x = rng.normal(0.3, 1.0, (2, 3, 6, 6)).astype(np.float32)
    layers = [conv, norm, *([nn.ReLU()] if relu else []), *([nn.MaxPool2d(2)] if pool == 2 else [])]
    expected = in_evaluation(nn.Sequential(*layers), x)
    incoming, outgoing = qparams_of(x), qparams_of(expected)
    layer = QuantizedConv2d.from_float(
        conv, incoming, outgoing, norm=norm, relu=relu, pool=pool, weight_bits=bits, per_channel=per_channel
    )
    assert layer.weight.dtype == np.int8
    assert np.abs(layer.weight).max() <= 2 ** (bits - 1) - 1
    found = layer(QuantizedTensor.of(x, incoming))
    fused = fuse_conv_bn(conv, norm).weight.data
    lost = fused - layer.weight * layer.weight_scale[:, None, None, None]
    off = error_bound(lost, fused, x, incoming.scale / 2) + outgoing.scale / 2
    assert np.abs(found.dequantize() - expected).max() <= off * (1 + 1e-3) + 1e-4


@few
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_a_linear_layer_gives_codes_or_numbers(seed, bias, floats):
    rng = np.random.default_rng(seed)
    linear, x = nn.Linear(20, 7, bias=bias, rng=rng), rng.normal(size=(4, 20)).astype(np.float32)
    expected = in_evaluation(linear, x)
    incoming, outgoing = qparams_of(x), None if floats else qparams_of(expected)
    layer = QuantizedLinear.from_float(linear, incoming, outgoing)
    found = layer(QuantizedTensor.of(x, incoming))
    assert isinstance(found, Tensor if floats else QuantizedTensor)
    numbers = found.data if floats else found.dequantize()
    lost = linear.weight.data - layer.weight * layer.weight_scale[:, None]
    off = error_bound(lost, linear.weight.data, x, incoming.scale / 2) + (0 if floats else outgoing.scale / 2)
    assert np.abs(numbers - expected).max() <= off * (1 + 1e-3) + 1e-4


def test_each_weight_takes_one_byte():
    conv = nn.Conv2d(4, 8, 3, rng=np.random.default_rng(0))
    for bits in (2, 8):
        layer = QuantizedConv2d.from_float(conv, QParams(0.1, 0), QParams(0.1, 0), weight_bits=bits)
        assert layer.weight.nbytes == conv.weight.data.size


def test_the_bias_makes_up_for_what_rounding_does_to_the_mean():
    """At 3 bits, over inputs that are all above zero, as behind a ReLU."""
    rng = np.random.default_rng(0)
    linear, x = nn.Linear(64, 32, rng=rng), rng.uniform(0, 1, (500, 64)).astype(np.float32)
    expected, incoming = in_evaluation(linear, x), qparams_of(x)

    def shift(**options):
        layer = QuantizedLinear.from_float(linear, incoming, weight_bits=3, **options)
        return np.abs((layer(QuantizedTensor.of(x, incoming)).data - expected).mean(axis=0)).max()

    assert shift(input_mean=x.mean(axis=0)) < 0.02 * shift()


def test_a_bias_that_is_huge_beside_the_weights_keeps_its_value():
    """Its code would need more than 32 bits in units of the weights' own scale."""
    linear = nn.Linear(2, 2, rng=np.random.default_rng(0))
    linear.weight.data[:], linear.bias.data[:] = [[1e-20, -1e-20], [0.0, 0.0]], [5.0, -1.0]
    layer = QuantizedLinear.from_float(linear, QParams(0.01, 0))
    found = layer(QuantizedTensor.of(np.ones((1, 2), np.float32), QParams(0.01, 0))).data
    np.testing.assert_allclose(found, [[5.0, -1.0]], rtol=1e-5)


def test_a_channel_without_weights_keeps_its_bias():
    """Pruned channels are so: the scale of their weights is free, and the bias takes it."""
    linear = nn.Linear(2, 3, rng=np.random.default_rng(0))
    linear.weight.data[:2], linear.bias.data[:] = 0.0, [0.123456, 0.0, 0.7]
    found = QuantizedLinear.from_float(linear, QParams(0.5, 0))(
        QuantizedTensor(np.zeros((1, 2), np.uint8), QParams(0.5, 0))
    )
    np.testing.assert_allclose(found.data[0, :2], [0.123456, 0.0], rtol=1e-5)


def test_pooling_keeps_the_meaning_of_codes():
    qparams = QParams(0.5, 3)
    codes = np.array([[3, 5], [4, 6]], np.uint8).reshape(1, 1, 2, 2)
    for mean, expected in ((False, 6), (True, 4)):  # the mean is 4.5: to the even number
        found = QuantizedPool2d(2, 2, mean, qparams)(QuantizedTensor(codes, qparams))
        assert found.codes.item() == expected
        assert found.qparams == qparams


LAYER = QuantizedLinear.from_float(nn.Linear(2, 2, rng=np.random.default_rng(0)), QParams(0.1, 7))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((1, 2), np.float32), TypeError, "takes a QuantizedTensor, not ndarray"),
        (
            QuantizedTensor(np.zeros((1, 2), np.uint8), QParams(0.2, 7)),
            ValueError,
            "made for codes of .*0.1.*got .*0.2",
        ),
        (QuantizedTensor(np.zeros((1, 2), np.uint8), QParams(0.1, 0)), ValueError, "zero_point=7.*zero_point=0"),
        (QuantizedTensor(np.zeros((1, 3), np.uint8), QParams(0.1, 7)), ValueError, r"takes \(2,\), not \(3,\)"),
        (QuantizedTensor(np.zeros((1, 2), np.int64), QParams(0.1, 7)), ValueError, "got int64"),
    ],
)
def test_inputs_that_were_not_meant_are_named(x, error, message):
    with pytest.raises(error, match=message):
        LAYER(x)


def test_weights_that_are_loaded_are_those_that_are_used():
    rng = np.random.default_rng(0)
    a, b = (QuantizedLinear.from_float(nn.Linear(4, 3, rng=rng), QParams(0.1, 7)) for _ in range(2))
    models, x = (QuantizedModel([a]), QuantizedModel([b])), rng.normal(size=(5, 4)).astype(np.float32)
    codes = QuantizedTensor.of(x, QParams(0.1, 7))
    assert not np.array_equal(a(codes).data, b(codes).data)
    models[0](x)
    models[0].load_state_dict(models[1].state_dict())
    np.testing.assert_array_equal(models[0](x).data, models[1](x).data)
    b.load_state_dict({**b.state_dict(), "bias": np.zeros(3, np.int32)})
    assert not np.array_equal(a(codes).data, b(codes).data)


def test_numbers_that_cannot_be_quantized_are_named():
    conv = nn.Conv2d(1, 1, 1, rng=np.random.default_rng(0))
    conv.weight.data[:] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite at 1 of 1 places"):
        QuantizedConv2d.from_float(conv, QParams(0.1, 0), QParams(0.1, 0))
    with pytest.raises(ValueError, match="give the qparams of the output"):
        QuantizedLinear.from_float(nn.Linear(2, 2), QParams(0.1, 0), relu=True)
    with pytest.raises(ValueError, match="another number of channels"):
        fuse_conv_bn(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(3))


def test_the_mse_observer_can_choose_the_weights_scale():
    """One weight of 100 among a thousand small ones: to clip it loses less than to round all others to zero."""
    linear = nn.Linear(100_000, 1, rng=np.random.default_rng(0))
    linear.weight.data[0] *= 100
    linear.weight.data[0, 0] = 5.0
    plain, least = (
        QuantizedLinear.from_float(linear, QParams(0.1, 0), weight_bits=4, **options)
        for options in ({}, {"weight_observer": MSEObserver})
    )
    assert least.weight_scale[0] < plain.weight_scale[0]
