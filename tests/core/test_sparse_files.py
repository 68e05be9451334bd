"""Zeros take a bit each in a file, whatever is read back is what was written, and files that lie are named."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from tinytorch import data, zoo
from tinytorch.compression import MagnitudePruner
from tinytorch.data import DataError
from tinytorch.quantization import INT8Quantizer, QuantizedModel
from tinytorch.zoo import files
from tinytorch.zoo.sparse_files import stored_bytes

few = settings(max_examples=60)
DTYPES = [np.float32, np.int8, np.uint8, np.int32, np.float64, np.float16, bool]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=9) | st.sampled_from([(0,), (3, 0), (5000,)])


@st.composite
def arrays(draw):
    """Any share of zeros, and for floats all the numbers that compare equal to zero or to nothing."""
    dtype, shape = np.dtype(draw(st.sampled_from(DTYPES))), draw(SHAPES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = np.asarray(rng.integers(1, 100, shape)).astype(dtype)
    if dtype.kind == "f":
        special = rng.random(shape) < 0.2
        array = np.where(special, rng.choice(np.array([-0.0, np.nan, -np.inf, 1e-8], dtype), shape), array)
    zero = rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
    array = np.where(zero, dtype.type(0), array)
    return draw(st.sampled_from([array, array.T, np.asfortranarray(array)]))


def assert_same_bits(a, b):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tobytes() == b.tobytes()


def header_bytes(raw):
    return 8 + int.from_bytes(raw[:8], "little")


def size_of(state):
    return sum(map(stored_bytes, state.values()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sparse")


# What is written is what is read


@few
@given(st.dictionaries(st.sampled_from(["a", "a.mask", "a.values", "0.weight", "ö"]), arrays(), min_size=1))
def test_arrays_come_back_bit_for_bit_in_as_many_bytes_as_are_counted(folder, state):
    path = folder / "any.safetensors"
    files.save_arrays(path, state, {"some": "thing"})
    back, raw = files.read_arrays(path), path.read_bytes()
    assert back.keys() == state.keys()
    for name, array in state.items():
        assert_same_bits(back[name], array)
    assert files.read_metadata(path) == {"some": "thing"}
    taken = {"a.mask", "a.values"} & state.keys()  # then `a` keeps its own name
    counted = sum(a.nbytes if name == "a" and taken else stored_bytes(a) for name, a in state.items())
    assert len(raw) - header_bytes(raw) == counted
    plain = save({name: np.asarray(a, order="C") for name, a in state.items()}, {"some": "thing"})
    assert len(raw) <= len(plain)


@few
@given(arrays())
def test_the_count_is_the_smaller_of_numbers_and_mask_with_values(array):
    """-0.0 counts as a value: it has a bit set."""
    values = sum(any(number.tobytes()) for number in array.reshape(-1))
    sparse = -(-array.size // 8) + values * array.itemsize
    assert stored_bytes(array) == (sparse if sparse + 256 < array.nbytes else array.nbytes)


def test_minus_zero_survives_among_zeros(tmp_path):
    array = np.zeros((40, 50), np.float32)
    array[7, 9] = -0.0
    assert stored_bytes(array) == 2000 // 8 + 4
    files.save_arrays(tmp_path / "x", {"x": array})
    assert_same_bits(files.read_arrays(tmp_path / "x")["x"], array)


def test_dense_weights_are_written_as_ever(tmp_path):
    """The bytes, and so the SHA-256, of the files that ship."""
    for name in ("reference_cnn", "char_gpt"):
        files.save_arrays(tmp_path / name, files.read_state(name))
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == files.read_card(name)["sha256"]


def test_arrays_are_read_by_the_names_that_a_file_without_sparse_arrays_gives_them(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(save({"a.mask": np.arange(3), "a.values": np.arange(4)}))
    assert sorted(files.read_arrays(path)) == ["a.mask", "a.values"]


def test_a_saved_model_with_zeros_is_read_with_its_card(tmp_path):
    model = MagnitudePruner(0.9).prepare(zoo.load("reference_cnn")).finalize()
    path = files.save_model("pruned", model.state_dict(), {"name": "pruned"}, tmp_path)
    assert files.read_card("pruned", tmp_path)["bytes"] == path.stat().st_size
    back = files.read_state("pruned", tmp_path)
    for name, array in model.state_dict().items():
        assert_same_bits(back[name], array)


# How small


def test_a_model_of_which_a_tenth_is_left_takes_a_tenth_and_a_bit_for_each_number(tmp_path):
    model = zoo.load("reference_cnn")
    pruner = MagnitudePruner(0.9).prepare(model)
    path = files.save_model("pruned", pruner.finalize().state_dict(), {}, tmp_path)
    weights = pruner.masks.values()
    rest = model.num_parameters() - sum(mask.size for mask in weights)  # biases and norms
    counted = sum(int(mask.sum()) * 4 + mask.size / 8 for mask in weights) + 4 * (rest + 2 * (16 + 32 + 64))
    assert size_of(model.state_dict()) == pytest.approx(counted, rel=0.01)  # the first layer stays dense
    raw = path.read_bytes()
    assert len(raw) == header_bytes(raw) + size_of(model.state_dict())
    assert header_bytes(raw) < 3000
    assert len(raw) < files.read_card("reference_cnn")["bytes"] / 6.5


def test_a_model_that_is_pruned_and_quantized_is_smaller_than_either_alone(tmp_path):
    images = data.fashion_mnist("train").images[:64]
    quantized, both, pruned = (tmp_path / name for name in ("quantized", "both", "pruned"))
    model = zoo.load("reference_cnn")
    INT8Quantizer().calibrate(model, images).convert(model).save(quantized)
    MagnitudePruner(0.9).prepare(model).finalize()
    files.save_arrays(pruned, model.state_dict())
    whole = INT8Quantizer().calibrate(model, images).convert(model)
    whole.save(both)
    sizes = [path.stat().st_size for path in (both, pruned, quantized)]
    assert sizes[0] < 0.5 * sizes[1]
    assert sizes[0] < 0.3 * sizes[2]
    assert sizes[0] < header_bytes(both.read_bytes()) + size_of(whole.state_dict()) + 1
    np.testing.assert_array_equal(QuantizedModel.load(both)(images).data, whole(images).data)


# Files that are not as they should be


def test_the_name_of_the_shapes_is_taken(tmp_path):
    with pytest.raises(ValueError, match="metadata cannot have an entry 'sparse'"):
        files.save_arrays(tmp_path / "x", {"a": np.zeros(3)}, {"sparse": "soil"})
    assert list(tmp_path.iterdir()) == []


def change(key, value):
    return lambda entries, shapes: (entries if key in entries else shapes).update({key: value})


MASK = np.packbits(np.arange(1004) < 9)
LIES = {
    "a value too few": (change("a.values", np.ones(8, np.float32)), "the mask of 'a' counts 9 values, but there are 8"),
    "values of two axes": (change("a.values", np.ones((3, 3), np.float32)), "counts 9 values"),
    "a bit more in the mask": (
        change("a.mask", np.packbits(np.arange(1004) < 10)),
        "counts 10 values, but there are 9",
    ),
    "a bit beyond the numbers": (change("a.mask", np.packbits(np.arange(1008) > 998)), "has bits beyond its 1004"),
    "a mask that is short": (change("a.mask", MASK[:-1]), "need a mask of 126 bytes, got 125"),
    "a mask of another type": (change("a.mask", MASK.astype(np.int64)), "need a mask of 126 bytes, got 1008"),
    "a shape of more numbers": (change("a", [251, 5]), "1255 numbers of 'a' need a mask of 157 bytes"),
    "a shape of too many": (change("a", [2**62, 2**62]), "got 126"),
    "a shape of none": (change("a", [251, 0, 4]), r"'a' has no shape: \[251, 0, 4\]"),
    "a shape below zero": (change("a", [-251, -4]), "has no shape"),
    "a shape of halves": (change("a", [502.0, 2]), "has no shape"),
    "a shape that is no list": (change("a", "1004"), "has no shape: '1004'"),
    "no mask": (lambda entries, shapes: entries.pop("a.mask"), "'a' has to stand there as mask and values"),
    "no values": (lambda entries, shapes: entries.pop("a.values"), "as mask and values"),
    "the array twice": (lambda entries, shapes: entries.update(a=MASK), "and only so"),
    "an array that is not there": (lambda entries, shapes: shapes.update(b=[3]), "the sparse array 'b'"),
}


@pytest.mark.parametrize(("lie", "message"), LIES.values(), ids=LIES)
def test_a_damaged_file_is_one_error_that_names_the_file_and_the_array(tmp_path, lie, message):
    array = (np.arange(1004, dtype=np.float32) < 9).astype(np.float32).reshape(251, 4)
    path = files.save_model("some", {"a": array, "dense": np.ones(3)}, {}, tmp_path)
    entries, shapes = load(path.read_bytes()), {"a": [251, 4]}
    np.testing.assert_array_equal(entries["a.mask"], MASK)
    lie(entries, shapes)
    assert_it_is_refused(path, save(entries, {"sparse": json.dumps(shapes)}), message)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [("", "Expecting value"), ("{", "Expecting"), ("[3]", r"and their shapes, got '\[3\]'")],
)
def test_shapes_that_are_none_are_one_error_that_names_the_file(tmp_path, shapes, message):
    path = files.save_model("some", {"a": np.ones(3)}, {}, tmp_path)
    assert_it_is_refused(path, save({"a": np.ones(3)}, {"sparse": shapes}), message)


def assert_it_is_refused(path, raw, message):
    path.write_bytes(raw)
    files.write(path.with_suffix(".json"), json.dumps({"sha256": hashlib.sha256(raw).hexdigest()}).encode())
    with pytest.raises(DataError, match=rf"some\.safetensors cannot be read: .*{message}"):
        files.read_arrays(path)
    with pytest.raises(DataError, match=rf"some\.safetensors is damaged: .*{message}.*git checkout"):
        files.read_state("some", path.parent)
