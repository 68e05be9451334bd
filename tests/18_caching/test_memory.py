"""Bytes on paper are the bytes that are allocated; published models need what is said of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch import nn
from tinytorch.caching.memory import PUBLISHED, kv_cache_bytes, shape_of
from tinytorch.caching.quantized import QuantizedKVCache

SIZES = st.integers(1, 5)


@given(SIZES, SIZES, st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3)]), SIZES, SIZES)
def test_the_count_is_what_is_allocated(batch, layers, heads, head_dim, length):
    rng = np.random.default_rng(0)
    model = nn.GPT(5, head_dim * heads[0], layers, heads[0], length, rng=rng, num_kv_heads=heads[1])
    counted = shape_of(model).kv_cache_bytes(length, batch, itemsize=4)
    assert counted == nn.KVCache.of(model, batch).nbytes
    assert counted == sum(layer.nbytes for layer in model.empty_past_key_values(batch))
    codes = shape_of(model).kv_cache_bytes(length, batch, itemsize=1)
    assert QuantizedKVCache.of(model, batch).nbytes == codes + 2 * 4 * batch * layers * length  # two scales a position


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.sampled_from([1, 2, 4]))
def test_every_size_is_a_factor(batch, length, layers, heads, dim, itemsize):
    sizes = {"batch_size": batch, "seq_len": length, "num_layers": layers, "num_kv_heads": heads, "head_dim": dim}
    one = kv_cache_bytes(**sizes, itemsize=itemsize)
    for name, size in (sizes | {"itemsize": itemsize}).items():
        assert kv_cache_bytes(**(sizes | {"itemsize": itemsize} | {name: 3 * size})) == 3 * one


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("GPT-2", 36 * 1024),
        ("GPT-2 medium", 96 * 1024),
        ("GPT-2 large", 180 * 1024),
        ("GPT-2 XL", 300 * 1024),
        ("Llama 2 7B", 512 * 1024),
        ("Llama 2 13B", 800 * 1024),
        ("Llama 2 70B", 320 * 1024),
        ("Llama 3 8B", 128 * 1024),
        ("Llama 3 70B", 320 * 1024),
        ("Llama 3.1 405B", 504 * 1024),
    ],
)
def test_a_position_of_a_published_model_takes_so_many_bytes_at_16_bits(name, bytes_per_token):
    """Kwon et al. (2023), section 3, count 800 KB for a token of a model of 13 billion parameters and 40 layers."""
    assert PUBLISHED[name].kv_cache_bytes(1) == bytes_per_token


WIDTHS = {
    "GPT-2": 768, "GPT-2 medium": 1024, "GPT-2 large": 1280, "GPT-2 XL": 1600, "Llama 2 7B": 4096, "Llama 2 13B": 5120,
    "Llama 2 70B": 8192, "Llama 3 8B": 4096, "Llama 3 70B": 8192, "Llama 3.1 405B": 16384,
}  # fmt: skip


def test_heads_make_up_the_published_widths():
    """The papers print the width of each model beside its layers; heads of queries fill it."""
    assert {name: shape.num_heads * shape.head_dim for name, shape in PUBLISHED.items()} == WIDTHS


def test_a_request_of_2048_tokens_takes_the_published_gigabytes():
    """Kwon et al. (2023), section 3: up to 1.6 GB for a text of 2,048 tokens, 40 layers and a width of 5,120."""
    assert round(PUBLISHED["Llama 2 13B"].kv_cache_bytes(2048) / 1024**3, 1) == 1.6


@pytest.mark.parametrize("shape", PUBLISHED.values(), ids=PUBLISHED)
def test_published_sizes_fit_together_and_have_a_source(shape):
    assert shape.num_heads % shape.num_kv_heads == 0
    assert shape.kv_cache_bytes(shape.max_seq_len) == shape.max_seq_len * shape.kv_cache_bytes(1)
    assert shape.source


@pytest.mark.parametrize("name", ["num_layers", "num_kv_heads", "head_dim", "batch_size", "itemsize"])
def test_sizes_below_one_are_refused(name):
    sizes = {"seq_len": 1, "num_layers": 1, "num_kv_heads": 1, "head_dim": 1}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        kv_cache_bytes(**(sizes | {name: 0}))
    with pytest.raises(ValueError, match="negative: -1"):
        kv_cache_bytes(**(sizes | {"seq_len": -1}))
