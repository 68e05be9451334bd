"""Files are written whole, the same each time, and as the package `safetensors` reads and writes them."""

import os
import threading

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch.benchmarks.tinymlperf import file
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,9}(\.[A-Za-z0-9_]{1,5}){0,3}", fullmatch=True)
dtypes = st.sampled_from(list(file.DTYPES.values()))
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
finite = {"allow_nan": False, "allow_infinity": False}
arrays = dtypes.flatmap(lambda d: hnp.arrays(d, shapes, elements=finite if d.kind == "f" else None))
files = st.dictionaries(names, arrays, max_size=5)
metadata = st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=3)
many = settings(max_examples=60)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@many
@given(metadata, files)
def test_what_is_written_is_read_here_and_by_safetensors(tmp_path_factory, texts, tensors):
    path = tmp_path_factory.getbasetemp() / "ours.safetensors"
    file.write(path, texts, tensors)
    found_texts, found = file.read(path)
    assert found_texts == texts
    assert_equal(found, tensors)
    assert_equal(safetensors.numpy.load_file(path), tensors)
    with safetensors.safe_open(path, "np") as opened:
        assert (opened.metadata() or {}) == texts


@many
@given(metadata, files)
def test_what_safetensors_writes_is_read(tmp_path_factory, texts, tensors):
    path = tmp_path_factory.getbasetemp() / "theirs.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors, texts or None))
    found_texts, found = file.read(path)
    assert found_texts == texts
    assert_equal(found, tensors)


@many
@given(files)
def test_what_is_read_is_aligned_and_cannot_be_written_to(tmp_path_factory, tensors):
    path = tmp_path_factory.getbasetemp() / "aligned.safetensors"
    raw = safetensors.numpy.save(tensors | {"first": np.zeros(3, np.uint8)})
    path.write_bytes(raw)
    for array in file.read(path)[1].values():
        assert array.flags.aligned
        assert array.flags.c_contiguous
        assert not array.flags.writeable


def test_a_tensor_that_begins_anywhere_is_aligned_when_read(tmp_path):
    header = (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    )
    numbers = np.array([1.5, -2.5], np.float32)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\7" + numbers.tobytes())
    found = file.read(path)[1]["b"]
    np.testing.assert_array_equal(found, numbers)
    assert found.flags.aligned
    assert not found.flags.writeable


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = tmp_path / "x"
    file.write(path, {}, {"a": np.zeros(100, np.int8)})
    asked = os.fstat

    def changed_after(descriptor):
        found = asked(descriptor)
        if os.path.samestat(found, os.stat(path)):
            os.truncate(path, found.st_size + change)
        return found

    monkeypatch.setattr(os, "fstat", changed_after)
    with pytest.raises(Rejected) as refused:
        file.read(path)
    assert refused.value.code == Code.TRUNCATED


def test_the_same_arrays_give_the_same_bytes_in_any_order():
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(3, dtype=np.int8)
    assert file.pack({"x": "1", "y": "2"}, {"a": a, "b": b}) == file.pack({"y": "2", "x": "1"}, {"b": b, "a": a})


def test_other_layouts_and_byte_orders_are_stored_as_the_format_asks(tmp_path):
    a = np.arange(6, dtype=">f4").reshape(2, 3).T
    file.write(tmp_path / "x", {}, {"a": a})
    found = file.read(tmp_path / "x")[1]["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, a)


@pytest.mark.parametrize(
    ("texts", "tensors", "code"),
    [
        ({}, {"a": np.array([np.nan], np.float32)}, Code.NOT_FINITE),
        ({}, {"a": np.zeros(1, np.float64)}, Code.BAD_DTYPE),
        ({}, {"a": np.array([None])}, Code.BAD_DTYPE),
        ({}, {"a/b": np.zeros(1, np.int8)}, Code.BAD_NAME),
        ({}, {"__metadata__": np.zeros(1, np.int8)}, Code.BAD_NAME),
        ({}, {"a": np.zeros((1,) * 9, np.int8)}, Code.TOO_LARGE),
        ({"a": "x" * 2**20}, {}, Code.TOO_LARGE),
        ({"a\n": "x"}, {}, Code.BAD_NAME),
    ],
)
def test_what_would_not_be_read_is_not_written(tmp_path, texts, tensors, code):
    with pytest.raises(Rejected) as refused:
        file.write(tmp_path / "x", texts, tensors)
    assert refused.value.code == code
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x"
    file.write(path, {}, {"a": np.zeros(3, np.int8)})
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file.write(path, {}, {"a": np.ones(3, np.int8)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace a file that someone reads")
def test_two_may_write_one_file_at_the_same_time(tmp_path):
    """Each reader sees one of the two, whole."""
    candidates = [{"a": np.full(10_000, i, np.int8)} for i in range(2)]
    failures = []

    def write(tensors):
        try:
            for _ in range(20):
                file.write(tmp_path / "x", {}, tensors)
        except Exception as error:
            failures.append(error)

    file.write(tmp_path / "x", {}, candidates[0])
    threads = [threading.Thread(target=write, args=(c,)) for c in candidates]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert len(set(file.read(tmp_path / "x")[1]["a"].tolist())) == 1
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tmp_path) == ["x"]
