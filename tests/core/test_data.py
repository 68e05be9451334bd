"""The data that ships: what its cards say, and what happens when a file is not as it should be."""

import gzip
import hashlib
import json
import lzma
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch import data
from tinytorch.data import DataError, files

LOADERS = {
    "fashion-train": lambda: data.fashion_mnist("train"),
    "fashion-test": lambda: data.fashion_mnist("test"),
    "digits": data.digits,
    "shakespeare-train": lambda: data.shakespeare("train"),
    "shakespeare-held-out": lambda: data.shakespeare("held-out"),
}
CARDS = {
    name: json.loads((files.FOLDER / f"{name}.json").read_text()) for name in ("fashion_mnist", "digits", "shakespeare")
}
SHIPPED = sorted(path.name for path in files.FOLDER.glob("*.xz"))


def loader_of(file: str):
    return next(load for name, load in LOADERS.items() if file.startswith(name))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the data folder, to be damaged."""
    copy = tmp_path / "files"
    shutil.copytree(files.FOLDER, copy)
    monkeypatch.setattr(files, "FOLDER", copy)
    monkeypatch.setattr(files.read, "__defaults__", (copy,))
    return copy


# What ships


def test_every_shipped_file_is_the_one_of_its_card():
    of_card = {file: entry for card in CARDS.values() for file, entry in card["files"].items() if file.endswith(".xz")}
    assert sorted(of_card) == SHIPPED
    for file, entry in of_card.items():
        packed = (files.FOLDER / file).read_bytes()
        assert len(packed) == entry["bytes"], file
        assert hashlib.sha256(lzma.decompress(packed)).hexdigest() == entry["sha256"], file


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_every_card_names_source_licence_and_how_to_get_files_back(card):
    assert all(card[field] for field in ("title", "source", "licence", "contents"))
    assert "git checkout" in card["restore"]


@pytest.mark.parametrize(("split", "per_class"), [("train", 1000), ("test", 1000)])
def test_fashion_images_are_float32_in_0_to_1_with_equal_classes(split, per_class):
    images, labels, classes = data.fashion_mnist(split)
    assert images.shape == (10_000, 1, 28, 28)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [per_class] * 10
    assert len(set(classes)) == 10


def test_digits_are_those_of_scikit_learn():
    images, labels, classes = data.digits()
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert classes == tuple("0123456789")
    datasets = pytest.importorskip("sklearn.datasets", reason="compares with scikit-learn: pip install scikit-learn")
    found = datasets.load_digits()
    np.testing.assert_array_equal(images[:, 0] * 16, found.images)
    np.testing.assert_array_equal(labels, found.target)


def test_no_test_image_is_among_the_shipped_training_images():
    train, test = (data.fashion_mnist(split).images for split in ("train", "test"))
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in test}


def test_shakespeare_is_about_a_megabyte_of_known_characters():
    train, held_out = data.shakespeare("train"), data.shakespeare("held-out")
    assert 1_000_000 < len(train.tokens) < 1_300_000
    assert 150_000 < len(held_out.tokens) < 300_000
    assert train.vocabulary == held_out.vocabulary
    assert train.tokens.max() < len(train.vocabulary)
    assert np.isin(held_out.tokens, train.tokens, invert=True).mean() < 1e-5  # what training never shows is a typo
    assert (len(train.titles), len(held_out.titles)) == (8, 2)
    assert not set(train.titles) & set(held_out.titles)


def test_held_out_plays_share_no_hundred_characters_with_the_training_text():
    """100 characters in a row hold a whole block of 50 that begins at a multiple of 50: so this looks everywhere."""
    train, held_out = (data.decode(data.shakespeare(split).tokens) for split in ("train", "held-out"))
    blocks = {train[i : i + 50] for i in range(0, len(train), 50)}
    for at in range(len(held_out) - 50):
        if held_out[at : at + 50] in blocks:
            around = range(max(0, at - 50), at + 1)
            assert not any(held_out[i : i + 100] in train for i in around if i + 100 <= len(held_out)), held_out[
                at : at + 50
            ]


# Damage


def flip_a_byte(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)


DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "a changed byte": flip_a_byte,
    "other contents": lambda path: path.write_bytes(lzma.compress(b"\0\0\x08\x01\0\0\0\x02ab")),
    "a web page": lambda path: path.write_bytes(b"<html>404</html>"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", SHIPPED)
def test_a_damaged_file_is_one_error_that_names_it_and_what_to_run(folder, file, damage):
    damage(folder / file)
    with pytest.raises(DataError, match=r"git checkout -- tinytorch/data/files") as caught:
        loader_of(file)()
    assert str(folder / file) in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__  # one error, no chain of them


@pytest.mark.parametrize("text", [None, "", '{"files": '], ids=["missing", "empty", "truncated"])
@pytest.mark.parametrize(("card", "load"), [("digits", data.digits), ("shakespeare", LOADERS["shakespeare-train"])])
def test_a_damaged_card_is_one_error_that_names_it_and_what_to_run(folder, card, load, text):
    path = folder / f"{card}.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match="git checkout -- tinytorch/data/files") as caught:
        load()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no gzip", gzip.compress(b"other contents", mtime=0)],
    ids=["missing", "empty", "no gzip", "other contents"],
)
def test_a_missing_full_training_set_says_how_to_get_it(tmp_path, monkeypatch, content):
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    if content is not None:
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz.*apt-get install.*FASHION_MNIST"):
        data.fashion_mnist("train-full")


@pytest.mark.parametrize("load", [data.fashion_mnist, data.shakespeare])
def test_an_unknown_split_is_an_error_that_lists_the_known_ones(load):
    with pytest.raises(ValueError, match=r'"train".*\'validation\''):
        load("validation")


# The IDX format


@settings(max_examples=50)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_idx_round_trips(array):
    for layout in (array, np.asarray(array, order="F")):
        back = files.parse_idx(files.format_idx(layout))
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)


def test_idx_writes_nothing_but_bytes():
    with pytest.raises(ValueError, match="float64"):
        files.format_idx(np.zeros(3))


sizes = st.lists(st.sampled_from([0, 1, 2, 3, 2**16, 2**31, 2**32 - 1]), max_size=70)


@st.composite
def idx_like(draw):
    """Bytes that begin like an IDX file, with any sizes and any number of bytes after them."""
    numbers = draw(sizes)
    rank = draw(st.sampled_from([len(numbers), 0, 255]))
    header = b"\0\0\x08" + bytes([rank]) + np.array(numbers, ">u4").tobytes()
    return header[: draw(st.sampled_from([None, -1, 5]))] + draw(st.binary(max_size=12))


@settings(max_examples=200)
@given(st.binary(max_size=40) | idx_like())
def test_any_bytes_are_a_right_array_or_a_value_error_without_a_large_allocation(raw):
    tracemalloc.start()
    try:
        array = files.parse_idx(raw)
    except ValueError:
        array = None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000
    if array is not None:
        assert files.format_idx(array) == raw


# Text and batches

letters = st.text(data.shakespeare("held-out").vocabulary, max_size=50)


@given(letters)
def test_decoding_undoes_encoding(text):
    tokens = data.encode(text)
    assert tokens.dtype == np.uint8
    assert data.decode(tokens) == text


def test_an_unknown_character_is_named_with_its_place():
    with pytest.raises(ValueError, match="'é' at position 3"):
        data.encode("café")


@settings(max_examples=30)
@given(n=st.integers(0, 50), batch_size=st.integers(1, 60), seed=st.integers(0, 99))
def test_shuffled_batches_hold_each_number_once(n, batch_size, seed):
    batches = list(data.shuffled(n, batch_size, np.random.default_rng(seed)))
    assert sorted(np.concatenate([[], *batches])) == list(range(n))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)
    again = list(data.shuffled(n, batch_size, np.random.default_rng(seed)))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


@settings(max_examples=30)
@given(extra=st.integers(1, 20), length=st.integers(1, 12), batch_size=st.integers(1, 5), seed=st.integers(0, 99))
def test_windows_are_pieces_of_the_text_and_targets_are_the_next_tokens(extra, length, batch_size, seed):
    text = np.arange(length + extra, dtype=np.uint8)
    inputs, targets = data.windows(text, batch_size, length, np.random.default_rng(seed))
    assert inputs.shape == targets.shape == (batch_size, length)
    assert inputs.dtype == targets.dtype == np.int64
    np.testing.assert_array_equal(inputs, inputs[:, :1] + np.arange(length))
    np.testing.assert_array_equal(targets, inputs + 1)
    assert targets.max() <= text[-1]


def test_windows_reach_both_ends_of_the_text_and_refuse_a_text_that_is_too_short():
    inputs, targets = data.windows(np.arange(6), 200, 4, np.random.default_rng(0))
    assert (inputs.min(), targets.max()) == (0, 5)
    with pytest.raises(ValueError, match=r"4 tokens.*text of 4"):
        data.windows(np.arange(4), 1, 4, np.random.default_rng(0))
