"""What was trained with rounding is what is left when the floats are gone: the same logits, bit for bit."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.states import assert_same_state, state_of
from tinytorch import Tensor, data, nn
from tinytorch.quantization import (
    FakeQuantize,
    INT8Quantizer,
    MinMaxObserver,
    MSEObserver,
    QuantizedPool2d,
    convert_qat,
    prepare_qat,
    train_qat,
)
from tinytorch.zoo.evaluation import accuracy

DIGITS = data.digits()


def small_cnn(seed=0):
    """Everything that a model of whole numbers may have: (N, 1, 8, 8) -> (N, 10)."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 8, 2, stride=1, rng=rng), nn.AvgPool2d(2, stride=1), nn.Flatten(), nn.Dropout(0.5, rng=rng),
        nn.Linear(32, 16, rng=rng), nn.ReLU(), nn.Linear(16, 10, rng=rng),
    )  # fmt: skip
    model[1].running_mean[:] = rng.normal(0, 0.1, 6)
    model[1].running_var[:] = rng.uniform(0.5, 2.0, 6)
    return model


@pytest.fixture(scope="module")
def trained():
    """The same, trained on the digits in float32. Tests leave it as it is."""
    model, rng = small_cnn(), np.random.default_rng(0)
    optimizer = tinytorch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(10):
        for chosen in data.shuffled(len(DIGITS.images), 64, rng):
            loss = nn.functional.cross_entropy(model(Tensor(DIGITS.images[chosen])), DIGITS.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def few_epochs(prepared, seed=0, **options):
    few = DIGITS.images[:320], DIGITS.labels[:320]
    options = {"epochs": 2, "lr": 3e-3, "progress": False} | options
    return train_qat(prepared, few, rng=np.random.default_rng(seed), **options)


# The straight-through estimator


def test_fake_quantization_rounds_and_saturates():
    x = Tensor(np.array([-9.0, -1.6, -0.5, 0.5, 1.5, 2.4, 3.0, 9.0], np.float32))
    np.testing.assert_array_equal(FakeQuantize.apply(x, -2, 3).data, [-2, -2, 0, 0, 2, 2, 3, 3])


def test_the_gradient_passes_inside_the_range_and_is_zero_beyond():
    x = Tensor(np.array([-9.0, -2.0, -0.4, 0.0, 2.9, 3.0, 3.1], np.float32), requires_grad=True)
    upstream = np.arange(1, 8, dtype=np.float32)
    FakeQuantize.apply(x, -2, 3).backward(upstream)
    np.testing.assert_array_equal(x.grad.data, [0, 2, 3, 4, 5, 6, 0])


def test_gradients_are_those_of_the_float_model_where_nothing_is_clipped():
    """At 8 bits the rounding is small: the directions of all gradients nearly agree."""
    rng = np.random.default_rng(1)
    model = nn.Sequential(nn.Linear(64, 12, rng=rng), nn.ReLU(), nn.Linear(12, 10, rng=rng))
    x = DIGITS.images[:64].reshape(64, 64)
    prepared = prepare_qat(model, x, observer=MinMaxObserver, weight_observer=MinMaxObserver)
    for network in (model, prepared):
        nn.functional.cross_entropy(network(Tensor(x)), DIGITS.labels[:64]).backward()
    for wanted, found in zip(model.parameters(), prepared.parameters(), strict=True):
        a, b = wanted.grad.data.ravel(), found.grad.data.ravel()
        assert a @ b > 0.99 * np.linalg.norm(a) * np.linalg.norm(b)
        assert np.linalg.norm(b) == pytest.approx(np.linalg.norm(a), rel=0.05)


# What is trained is what is converted


@pytest.mark.parametrize(("bits", "per_channel"), [(8, True), (8, False), (4, True), (3, False), (2, True)])
def test_untrained_it_computes_what_the_quantizer_makes_of_the_model(cnn, calibration_images, bits, per_channel):
    quantizer = INT8Quantizer(
        MSEObserver, weight_observer=MSEObserver, bits=bits, weight_bits=bits, per_channel=per_channel
    )
    expected = quantizer.calibrate(cnn, calibration_images).convert(cnn)
    prepared = prepare_qat(cnn, calibration_images, bits=bits, weight_bits=bits, per_channel=per_channel)
    x = Tensor(calibration_images)
    np.testing.assert_array_equal(prepared(x).data, expected(x).data)
    np.testing.assert_array_equal(convert_qat(prepared)(x).data, expected(x).data)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 99), bits=st.integers(2, 8), weight_bits=st.integers(2, 8), per_channel=st.booleans(),
    observer=st.sampled_from([MinMaxObserver, MSEObserver]), backend=st.sampled_from(["numpy", "numba"]),
)  # fmt: skip
def test_after_training_the_model_of_whole_numbers_has_the_same_logits(
    seed, bits, weight_bits, per_channel, observer, backend
):
    prepared = prepare_qat(
        small_cnn(seed), DIGITS.images[:100], bits=bits, weight_bits=weight_bits, per_channel=per_channel,
        observer=observer, weight_observer=observer,
    )  # fmt: skip
    few_epochs(prepared, seed)
    x = Tensor(2 * DIGITS.images[:500])  # beyond what was calibrated, too
    with tinytorch.backend(backend):
        np.testing.assert_array_equal(convert_qat(prepared)(x).data, prepared(x).data)


def test_means_of_codes_round_halves_alike():
    """Means of four codes are halves one time in four, with an odd zero point too."""
    model = nn.Sequential(nn.AvgPool2d(2))
    x = np.random.default_rng(0).uniform(-1.0, 1.01, (50, 2, 8, 8)).astype(np.float32)
    prepared = prepare_qat(model, x, observer=MinMaxObserver)
    (pool,) = convert_qat(prepared).layers
    assert isinstance(pool, QuantizedPool2d)
    assert pool.qparams.zero_point % 2 == 1
    np.testing.assert_array_equal(convert_qat(prepared)(x).data, prepared(Tensor(x)).data)


def test_a_layer_left_in_float32_is_trained_too_and_stays_where_it_is():
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=rng), nn.ReLU(), nn.GELU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10, rng=rng)
    )
    prepared = prepare_qat(model, DIGITS.images[:64], bits=4, weight_bits=4, unsupported="float")
    before = state_of(model)
    few_epochs(prepared)
    assert_same_state(state_of(model), before)
    x, converted = Tensor(DIGITS.images[:50]), convert_qat(prepared)
    norm = next(layer for layer in converted.layers if isinstance(layer, nn.BatchNorm2d))
    assert not np.array_equal(norm.weight.data, model[3].weight.data)
    np.testing.assert_array_equal(converted(x).data, prepared(x).data)


def test_a_channel_without_weights_keeps_its_bias_exactly():
    model = nn.Sequential(nn.Linear(64, 3, rng=np.random.default_rng(0)))
    model[0].weight.data[:2] = [[0.0], [1e-30]]
    model[0].bias.data[:] = [0.3, 0.7, 0.1]
    x = DIGITS.images[:64].reshape(64, 64)
    prepared = prepare_qat(model, x)
    prepared[1].bias.data[:] = [0.3, 0.7, 0.1]
    np.testing.assert_allclose(prepared(Tensor(x)).data[:, :2], [[0.3, 0.7]] * 64, rtol=1e-6)
    np.testing.assert_array_equal(convert_qat(prepared)(x).data, prepared(Tensor(x)).data)


# The training


@pytest.mark.parametrize("bits", [4, 3])
def test_training_brings_back_half_of_what_few_bits_lose(cnn, calibration_images, test_images, bits):
    before, some = accuracy(cnn, test_images), data.fashion_mnist("train")
    untrained = max(
        accuracy(
            INT8Quantizer(observer, weight_observer=observer, bits=bits, weight_bits=bits)
            .calibrate(cnn, calibration_images)
            .convert(cnn),
            test_images,
        )
        for observer in (MinMaxObserver, MSEObserver)
    )
    prepared = prepare_qat(cnn, calibration_images, bits=bits, weight_bits=bits)
    train_qat(prepared, some, teacher=cnn, rng=np.random.default_rng(0), progress=False)
    trained = accuracy(convert_qat(prepared), test_images)
    assert trained - untrained >= (before - untrained) / 2


def test_training_lowers_the_loss_and_says_by_epoch_to_what(trained):
    prepared = prepare_qat(trained, DIGITS.images[:100], bits=3, weight_bits=3)
    losses = few_epochs(prepared, epochs=6)
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]


def test_a_teacher_is_left_as_it_was_and_come_closer_to_than_without(trained):
    teacher = copy.deepcopy(trained).train()
    before = state_of(teacher)
    x = Tensor(DIGITS.images[320:])
    distances = []
    for given_one in (None, teacher):
        prepared = prepare_qat(trained, DIGITS.images[:100], bits=4, weight_bits=4)
        few_epochs(prepared, teacher=given_one)
        distances.append(np.square(prepared(x).data - trained(x).data).mean())
    assert distances[1] < 0.7 * distances[0]
    assert_same_state(state_of(teacher), before)


def test_the_same_seed_trains_the_same_model_and_another_one_another():
    weights = []
    for seed in (0, 0, 1):
        prepared = prepare_qat(small_cnn(), DIGITS.images[:100], bits=4, weight_bits=4)
        few_epochs(prepared, seed)
        weights.append(convert_qat(prepared).state_dict())
    assert all(np.array_equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(not np.array_equal(weights[0][k], weights[2][k]) for k in weights[0])


def test_the_original_is_left_as_it_was():
    model = small_cnn().train()
    before = state_of(model)
    few_epochs(prepare_qat(model, DIGITS.images[:100]))
    assert_same_state(state_of(model), before)


def test_a_prepared_model_keeps_its_state_in_a_state_dict():
    trained, other = (prepare_qat(small_cnn(s), DIGITS.images[:100], bits=4, weight_bits=4) for s in (0, 0))
    few_epochs(trained)
    other.load_state_dict(trained.state_dict())
    x = Tensor(DIGITS.images[:100])
    np.testing.assert_array_equal(other(x).data, trained(x).data)


def test_after_ctrl_c_the_model_is_that_of_the_last_step_and_can_be_converted(monkeypatch):
    prepared = prepare_qat(small_cnn(), DIGITS.images[:100], bits=4, weight_bits=4)
    start = state_of(prepared)[0]
    steps = 0
    step = tinytorch.optim.AdamW.step

    def third_is_the_last(self):
        nonlocal steps
        steps += 1
        if steps > 3:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(tinytorch.optim.AdamW, "step", third_is_the_last)
    with pytest.raises(KeyboardInterrupt):
        few_epochs(prepared)
    assert any(not np.array_equal(a, start[name]) for name, a in prepared.state_dict().items())
    assert not any(module.training for module in prepared.modules())
    x = Tensor(DIGITS.images[:100])
    np.testing.assert_array_equal(convert_qat(prepared)(x).data, prepared(x).data)


def test_nothing_goes_to_stderr_where_that_is_no_terminal(capsys):
    prepared = prepare_qat(small_cnn(), DIGITS.images[:100])
    few_epochs(prepared, progress=True)
    assert capsys.readouterr().err == ""


# What is refused


def test_calibration_data_are_checked_as_by_the_quantizer():
    model = small_cnn()
    with pytest.raises(ValueError, match="no calibration data"):
        prepare_qat(model, DIGITS.images[:0])
    with pytest.raises(TypeError, match="float32"):
        prepare_qat(model, DIGITS.images[:10].astype(np.float64))
    with pytest.raises(ValueError, match="bits must be"):
        prepare_qat(model, DIGITS.images[:10], bits=9)
    with pytest.raises(ValueError, match="GELU"):
        prepare_qat(nn.Sequential(nn.Linear(64, 3), nn.GELU()), DIGITS.images[:10])


@pytest.mark.parametrize(
    ("images", "labels", "options", "error", "words"),
    [
        (DIGITS.images[:0], DIGITS.labels[:0], {}, ValueError, "got 0 and 0"),
        (DIGITS.images[:5], DIGITS.labels[:4], {}, ValueError, "got 5 and 4"),
        (DIGITS.images[:5].astype(np.float64), DIGITS.labels[:5], {}, TypeError, "float32, not float64"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"epochs": 0}, ValueError, "1 or more, got 0 and 64"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"batch_size": 0}, ValueError, "got 3 and 0"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"lr": -1.0}, ValueError, "lr must not be negative"),
    ],
)
def test_training_refuses_what_it_cannot_use(images, labels, options, error, words):
    prepared = prepare_qat(small_cnn(), DIGITS.images[:20])
    before = state_of(prepared)
    with pytest.raises(error, match=words):
        train_qat(prepared, (images, labels), rng=np.random.default_rng(0), progress=False, **options)
    assert_same_state(state_of(prepared), before)


def test_a_loss_that_is_no_number_stops_the_training_and_such_weights_are_not_converted():
    prepared = prepare_qat(small_cnn(), DIGITS.images[:20])
    prepared[2].weight.data[0, 0] = np.nan
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        few_epochs(prepared)
    with pytest.raises(ValueError, match=r"QATConv2d at '2': the weight is NaN or infinite at 4 of .*: prepare anew"):
        convert_qat(prepared)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 3, 8, 8), "QATConv2d takes 1 channels"),
        ((2, 8, 8), "QATConv2d takes images"),
        ((1, 1, 2, 2), "QATConv2d: a window of 2 x 2"),
        ((1, 1, 4, 4), "QATPool2d: a window of 2 x 2"),
    ],
)
def test_images_of_other_shapes_are_refused_as_by_the_float_model(shape, words):
    prepared = prepare_qat(small_cnn().eval(), DIGITS.images[:8], progress=False)
    with pytest.raises(ValueError, match=words):
        prepared(Tensor(np.zeros(shape, np.float32)))


def test_only_what_was_prepared_is_converted():
    for model in (small_cnn(), nn.Linear(3, 2)):
        with pytest.raises(TypeError, match="only what prepare_qat returned"):
            convert_qat(model)
