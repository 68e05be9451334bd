"""The cache of a whole model: what it holds, what it refuses, and that it changes nothing but the work."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import random_gpt, remembered
from tinytorch import Tensor, nn, no_grad
from tinytorch.caching.cached_attention import CachedAttention

few = settings(max_examples=25)


def small_gpt(vocab=7, head_dim=3, num_layers=2, num_heads=2, max_seq_len=12, num_kv_heads=None, seed=0) -> nn.GPT:
    sizes = vocab, head_dim * num_heads, num_layers, num_heads, max_seq_len
    return random_gpt(*sizes, seed=seed, num_kv_heads=num_kv_heads)


# What it holds


@given(st.tuples(*[st.integers(1, 5)] * 5))
def test_its_bytes_are_those_of_keys_and_values(sizes):
    batch, capacity, layers, heads, dim = sizes
    cache = nn.KVCache(*sizes)
    assert cache.nbytes == 2 * 4 * batch * capacity * layers * heads * dim
    assert cache.shape == (layers, batch, heads, capacity, dim)
    assert (len(cache), cache.length) == (layers, 0)


@given(st.lists(st.integers(1, 4), max_size=4), st.integers(0, 2**32 - 1))
def test_what_was_put_in_comes_out_in_order(pieces, seed):
    rng = np.random.default_rng(seed)
    cache = nn.KVCache(batch_size=2, max_seq_len=16, num_layers=3, num_kv_heads=2, head_dim=4)
    keys, values = rng.standard_normal((2, 3, 2, 2, sum(pieces), 4)).astype(np.float32)
    at = 0
    for piece in pieces:
        for layer in range(3):
            new = slice(at, at + piece)
            found = cache.update(layer, keys[layer][:, :, new], values[layer][:, :, new])
            np.testing.assert_array_equal(found[0], keys[layer][:, :, : at + piece])
            np.testing.assert_array_equal(found[1], values[layer][:, :, : at + piece])
        at += piece
    assert cache.length == at


def test_memory_stays_where_it_was_allocated():
    cache = nn.KVCache(1, 8, 1, 1, 2)
    keys, _ = cache.update(0, np.ones((1, 1, 3, 2), np.float32), np.ones((1, 1, 3, 2), np.float32))
    assert np.shares_memory(keys, cache[0].keys)
    cache.reset()
    again, _ = cache.update(0, np.zeros((1, 1, 1, 2), np.float32), np.ones((1, 1, 1, 2), np.float32))
    assert np.shares_memory(again, keys)
    assert cache.length == 1


@few
@given(st.integers(1, 11), st.data())
def test_after_cutting_it_goes_on_as_if_the_rest_had_never_been(length, data):
    model, ids = small_gpt(), np.random.default_rng(length).integers(0, 7, (2, 12))
    kept = data.draw(st.integers(0, length))
    cache = nn.KVCache.of(model, batch_size=2)
    with no_grad():
        model((ids[:, :length] + 1) % 7, cache)  # other tokens behind the first `kept`
        cache.truncate(0)
        model(ids[:, :length], cache)
        cache.truncate(kept)
        rest = model(ids[:, kept:], cache).data
        np.testing.assert_allclose(rest, model(ids).data[:, kept:], rtol=0, atol=1e-5)


# Nothing changes but the work


@few
@given(st.integers(1, 3), st.sampled_from([(2, 1), (4, 2), (4, 1), (3, 3)]), st.integers(1, 12), st.data())
def test_logits_with_the_cache_equal_those_without_at_every_position(batch, heads, length, data):
    model = small_gpt(num_heads=heads[0], num_kv_heads=heads[1])
    ids = np.random.default_rng(length).integers(0, 7, (batch, length))
    cut = data.draw(st.integers(0, length))
    cache = nn.KVCache.of(model, batch)
    with no_grad():
        parts = [model(ids[:, a:b], cache).data for a, b in ((0, cut), (cut, length)) if b > a]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), model(ids).data, rtol=0, atol=1e-5)


@few
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 5), st.sampled_from([None, 1]))
def test_sequences_that_begin_later_give_the_logits_that_they_give_alone(lengths, steps, num_kv_heads):
    model, rng = small_gpt(num_kv_heads=num_kv_heads), np.random.default_rng(sum(lengths))
    texts = [rng.integers(0, 7, length + steps) for length in lengths]
    longest = max(lengths)
    cache = nn.KVCache.of(model, len(lengths))
    cache.begin_at(np.array([longest - length for length in lengths]))
    padded = np.zeros((len(texts), longest + steps), int)
    for row, text in zip(padded, texts, strict=True):
        row[len(row) - len(text) :] = text
    with no_grad():
        out = [model(padded[:, :longest], cache).data]
        out += [model(padded[:, at : at + 1], cache).data for at in range(longest, longest + steps)]
        together = np.concatenate(out, axis=1)
        assert np.isfinite(together).all()
        for row, text in zip(together, texts, strict=True):
            alone = model(text[None]).data[0]
            np.testing.assert_allclose(row[len(row) - len(text) :], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_shared_heads_make_the_cache_smaller_by_the_size_of_the_group(num_kv_heads):
    full, shared = (nn.KVCache.of(small_gpt(num_heads=4, num_kv_heads=n)) for n in (4, num_kv_heads))
    assert full.nbytes == shared.nbytes * 4 // num_kv_heads


def test_shared_heads_compute_what_as_many_equal_heads_compute():
    shared = small_gpt(num_heads=4, num_kv_heads=2)
    full = small_gpt(num_heads=4)
    state = shared.state_dict()
    for i in range(2):
        for kind in ("weight", "bias"):
            name = f"blocks.{i}.attention.in_proj.{kind}"
            q, k, v = np.split(state[name], [12, 18])  # 4 heads of queries, 2 of keys, 2 of values, 3 numbers each
            rows = [q, *(np.repeat(x.reshape(2, 3, *x.shape[1:]), 2, axis=0).reshape(12, *x.shape[1:]) for x in (k, v))]
            state[name] = np.concatenate(rows)
    full.load_state_dict(state)
    ids = np.random.default_rng(0).integers(0, 7, (2, 9))
    np.testing.assert_allclose(shared(ids).data, full(ids).data, rtol=0, atol=1e-5)


def test_shared_heads_can_be_trained():
    model, ids = small_gpt(num_heads=4, num_kv_heads=2), np.random.default_rng(0).integers(0, 7, (2, 9))
    model(ids).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@few
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_attention_alone_remembers_what_it_was_given(pieces, seed):
    rng = np.random.default_rng(seed)
    attention = nn.MultiHeadAttention(6, 2, rng=rng)
    cached = CachedAttention(attention, nn.KVCache(2, 20, 3, 2, 3), layer_idx=1)
    x = Tensor(rng.standard_normal((2, sum(pieces), 6)).astype(np.float32))
    edges = np.cumsum([0, *pieces])
    parts = [cached(x[:, a:b]).data for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), attention(x).data, rtol=0, atol=1e-5)


# What it refuses


REFUSED = {
    "size 0": (ValueError, r"\(1, 2, 0, 3\)", lambda: nn.KVCache(1, 0, 1, 2, 3)),
    "no layers": (ValueError, "not 0", lambda: nn.KVCache(1, 1, 0, 1, 1)),
    "heads that do not divide": (ValueError, "4 is no multiple of num_kv_heads 3", lambda: small_gpt(
        num_heads=4, num_kv_heads=3)),
    "no heads": (ValueError, "num_kv_heads 0", lambda: small_gpt(num_kv_heads=0)),
    "layer outside": (IndexError, r"0 \.\.\. 1, not 2", lambda: CachedAttention(
        nn.MultiHeadAttention(6, 2), nn.KVCache(1, 4, 2, 2, 3), 2)),
    "other heads": (ValueError, "2 heads of keys and values, of 3", lambda: CachedAttention(
        nn.MultiHeadAttention(6, 2), nn.KVCache(1, 4, 2, 3, 2), 0)),
}  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), REFUSED.values(), ids=REFUSED)
def test_bad_sizes_are_refused_with_their_values(error, message, call):
    with pytest.raises(error, match=message):
        call()


def refusals(model: nn.GPT, cache: nn.KVCache):
    key = np.zeros((1, 2, 1, 3), np.float32)
    yield IndexError, "not 2", lambda: cache.update(2, key, key)
    yield IndexError, "not -1", lambda: cache.update(-1, key, key)
    yield ValueError, "do not belong", lambda: cache.update(0, key[:, :1], key[:, :1])
    yield ValueError, "values", lambda: cache.update(0, key, key[..., :2])
    yield ValueError, "full", lambda: cache.update(0, np.zeros((1, 2, 12, 3), np.float32), key)
    yield ValueError, "cut to 6", lambda: cache.truncate(6)
    yield ValueError, "cut to -1", lambda: cache.truncate(-1)
    yield ValueError, "as many positions", lambda: cache.begin_at(np.array([1]))
    yield ValueError, "another model", lambda: small_gpt(seed=1)(np.array([[1]]), cache)
    yield ValueError, "full", lambda: model(np.zeros((1, 8), int), cache)
    yield ValueError, "do not belong", lambda: model(np.zeros((2, 1), int), cache)
    yield IndexError, "id 7", lambda: model(np.array([[7]]), cache)
    yield IndexError, "id -1", lambda: model(np.array([[-1]]), cache)
    yield ValueError, r"\(1, 0\)", lambda: model(np.zeros((1, 0), int), cache)


def test_after_a_mistake_the_cache_is_as_it_was_and_goes_on():
    model, cache = small_gpt(), nn.KVCache(1, 12, 2, 2, 3)
    ids = np.random.default_rng(0).integers(0, 7, (1, 12))
    with no_grad():
        model(ids[:, :5], cache)
        before = remembered(cache)
        for error, message, call in refusals(model, cache):
            with pytest.raises(error, match=message):
                call()
            assert remembered(cache) == before
        rest = model(ids[:, 5:], cache).data
        np.testing.assert_allclose(rest, model(ids).data[:, 5:], rtol=0, atol=1e-5)


def test_a_full_cache_says_so_and_can_be_cut():
    model, cache = small_gpt(), nn.KVCache(1, 3, 2, 2, 3)
    with no_grad():
        model(np.array([[1, 2, 3]]), cache)
        before = remembered(cache)
        with pytest.raises(ValueError, match="full: it holds 3 of 3"):
            model(np.array([[4]]), cache)
        assert remembered(cache) == before
        cache.truncate(2)
        model(np.array([[4]]), cache)


def test_an_emptied_cache_may_be_filled_by_another_model():
    cache = nn.KVCache(1, 12, 2, 2, 3)
    with no_grad():
        small_gpt()(np.array([[1]]), cache)
        cache.reset()
        small_gpt(seed=1)(np.array([[1]]), cache)
    assert cache.length == 1


def test_it_says_what_it_holds():
    assert repr(nn.KVCache(1, 12, 2, 2, 3)).endswith("num_kv_heads=2, head_dim=3): 0 positions, 1,152 bytes")
