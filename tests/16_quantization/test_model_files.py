"""A quantized model is saved in a quarter of the bytes, and what is read back computes the same."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from tinytorch import nn
from tinytorch.data import DataError
from tinytorch.quantization import INT8Quantizer, QuantizedModel
from tinytorch.zoo import files


@pytest.fixture
def saved(quantized, tmp_path):
    return quantized.save(tmp_path / "cnn.safetensors")


def test_the_file_is_almost_four_times_smaller(saved):
    assert files.read_card("reference_cnn")["bytes"] / saved.stat().st_size >= 3.8


def test_what_is_read_back_computes_the_same(quantized, saved, calibration_images):
    np.testing.assert_array_equal(
        QuantizedModel.load(saved)(calibration_images).data, quantized(calibration_images).data
    )


def test_every_kind_of_layer_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 2, stride=2, padding=1, rng=rng), nn.MaxPool2d(3, 1), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(5, 4, rng=rng), nn.ReLU(), nn.Linear(4, 3, bias=False, rng=rng),
    )  # fmt: skip
    x = rng.normal(size=(9, 2, 8, 8)).astype(np.float32)
    model = INT8Quantizer(weight_bits=5, bits=6).calibrate(model, x).convert(model)
    back = QuantizedModel.load(model.save(tmp_path / "x.safetensors"))
    assert repr(back) == repr(model)
    np.testing.assert_array_equal(back(x).data, model(x).data)


def test_layers_in_float_have_no_form_in_the_file(tmp_path):
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(4, 4, rng=rng), nn.GELU(), nn.Linear(4, 2, rng=rng))
    x = rng.normal(size=(9, 4)).astype(np.float32)
    model = INT8Quantizer(unsupported="float").calibrate(model, x).convert(model)
    with pytest.raises(ValueError, match="in float32 are layers 1"):
        model.save(tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_quantized_model_are_named(saved, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        QuantizedModel.load(tmp_path / "nothing.safetensors")
    with pytest.raises(DataError, match="its metadata has no format 'tinytorch-int8-1'"):
        QuantizedModel.load(files.FOLDER / "reference_cnn.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        QuantizedModel.load(broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers, arrays: arrays.pop("0.weight"), "0.weight"),
        (lambda layers, arrays: layers[0].update(kind="magic"), "unknown kind: 'magic'"),
        (lambda layers, arrays: layers[0].pop("in"), "in"),
        (lambda layers, arrays: layers[0].update(out=[0.1, 300, 8]), "300 ... 255 do not lie in 0 ... 255"),
        (lambda layers, arrays: layers[0].update(out=[0.1, 0, 11]), "bits must be"),
        (lambda layers, arrays: layers[0].update(out=[float("nan"), 0, 8]), "multiplier"),
        (lambda layers, arrays: arrays.update({"0.weight": np.ones((16, 1, 3, 3))}), "weight has to be int8"),
        (lambda layers, arrays: arrays.update({"0.bias": np.ones(3, np.int32)}), "need as many numbers"),
        (lambda layers, arrays: layers.clear(), "it has no layers"),
    ],
)
def test_a_file_that_was_tampered_with_is_named(saved, change, message):
    arrays, metadata = load(saved.read_bytes()), files.read_metadata(saved)
    layers = json.loads(metadata["layers"])
    change(layers, arrays)
    saved.write_bytes(save(arrays, metadata | {"layers": json.dumps(layers)}))
    with pytest.raises(DataError, match=message):
        QuantizedModel.load(saved)
