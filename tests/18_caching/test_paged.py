"""A model computes with pages what it computes without a cache; what does not fit is refused and changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import random_gpt
from tinytorch import nn, no_grad
from tinytorch.caching.paged import PagedKVCache
from tinytorch.caching.pages import OutOfPages, PagePool
from tinytorch.caching.prefix import PrefixCache

few = settings(max_examples=25)
LAYERS, HEADS, DIM = 2, 2, 3


def small_gpt(num_heads=2, num_kv_heads=None, max_seq_len=40, seed=0) -> nn.GPT:
    sizes = 7, DIM * num_heads, LAYERS, num_heads, max_seq_len
    return random_gpt(*sizes, seed=seed, num_kv_heads=num_kv_heads)


# With a model


@few
@given(st.sampled_from([1, 4, 16]), st.sampled_from([(2, 2), (4, 2), (4, 1)]), st.integers(1, 20), st.integers(0, 99))
def test_generation_gives_the_logits_that_it_gives_without_a_cache(page_size, heads, prompt, seed):
    model, ids = small_gpt(*heads), np.random.default_rng(seed).integers(0, 7, (1, 40))
    cache = PagedKVCache(PagePool.of(model, 40, page_size))
    with no_grad():
        parts = [model(ids[:, :prompt], past_key_values=cache).data]
        parts += [model(ids[:, at : at + 1], past_key_values=cache).data for at in range(prompt, 40)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), model(ids).data, rtol=0, atol=1e-5)
    assert (cache.length, len(cache.pages)) == (40, -(-40 // page_size))


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_generate_takes_it_as_a_cache(page_size):
    model, prompt = small_gpt(), np.array([3, 1, 4, 1, 5])
    cache = PagedKVCache(PagePool.of(model, 39 // page_size + 1, page_size))
    expected = model.generate(prompt, 35, rng=np.random.default_rng(0), use_cache=False)
    np.testing.assert_array_equal(model.generate(prompt, 35, rng=np.random.default_rng(0), cache=cache), expected)
    assert cache.length == 39


@few
@given(st.sampled_from([1, 4, 16]), st.integers(1, 20), st.integers(0, 99))
def test_texts_that_part_after_a_fork_are_both_right(page_size, shared, seed):
    model, rng = small_gpt(), np.random.default_rng(seed)
    texts = rng.integers(0, 7, (2, 30))
    texts[1, :shared] = texts[0, :shared]
    pool = PagePool.of(model, 60, page_size)
    caches = [PagedKVCache(pool)]
    with no_grad():
        model(texts[:1, :shared], caches[0])
        caches.append(caches[0].fork())
        held = pool.num_pages - pool.free_pages
        assert held == -(-shared // page_size)
        for at in range(shared, 30):
            for text, cache in zip(texts, caches, strict=True):
                logits = model(text[None, at : at + 1], cache).data[0, -1]
                np.testing.assert_allclose(logits, model(text[None, : at + 1]).data[0, -1], rtol=0, atol=1e-5)
    full = shared // page_size
    assert caches[0].pages[:full] == caches[1].pages[:full]
    assert not set(caches[0].pages[full:]) & set(caches[1].pages[full:])


@few
@given(st.sampled_from([1, 4, 16]), st.integers(0, 20), st.integers(0, 99))
def test_a_prompt_that_begins_like_another_goes_on_from_its_pages(page_size, common, seed):
    model, rng = small_gpt(), np.random.default_rng(seed)
    texts = rng.integers(0, 7, (2, 21))
    texts[1, :common] = texts[0, :common]
    pool = PagePool.of(model, 60, page_size)
    first, prefixes = PagedKVCache(pool), PrefixCache(pool)
    with no_grad():
        model(texts[:1], first)
        prefixes.insert(texts[0], first)
        first.release()
        second = prefixes.match(texts[1])
        assert second.length >= common // page_size * page_size
        logits = model(texts[1:, second.length :], second).data
        np.testing.assert_allclose(logits, model(texts[1:]).data[:, -logits.shape[1] :], rtol=0, atol=1e-5)


# What is refused


def test_out_of_pages_changes_nothing_and_the_sequence_goes_on_once_pages_are_free():
    model, ids = small_gpt(), np.random.default_rng(0).integers(0, 7, (1, 12))
    pool = PagePool.of(model, 3, 4)
    cache, other = PagedKVCache(pool), PagedKVCache(pool)
    with no_grad():
        model(ids[:, :6], cache)
        model(ids[:, :4], other)
        before = cache.pages, pool.memory.tobytes()
        with pytest.raises(OutOfPages, match="1 pages of 4 positions are wanted, 0 of 3 are free"):
            model(ids[:, 6:9], cache)
        forked = cache.fork()
        with pytest.raises(OutOfPages, match="1 pages"):  # for the copy
            forked[1].check((1, HEADS, 1, DIM))
        with pytest.raises(OutOfPages, match="1 pages"):
            model(ids[:, 6:7], forked)
        forked.release()
        assert (cache.pages, pool.memory.tobytes()) == before
        assert cache.length == 6
        other.release()
        rest = model(ids[:, 6:], cache).data
        np.testing.assert_allclose(rest, model(ids).data[:, 6:], rtol=0, atol=1e-5)


def refusals(pool: PagePool, cache: PagedKVCache, prefixes: PrefixCache):
    key = np.zeros((1, HEADS, 1, DIM), np.float32)
    other = PagedKVCache(PagePool(1, 4, LAYERS, HEADS, DIM))
    yield IndexError, r"layers 0 \.\.\. 1, not 2", lambda: cache.update(2, key, key)
    yield IndexError, "not -1", lambda: cache.update(-1, key, key)
    yield ValueError, r"\(1, 1, 1, 3\) do not belong .* \(1, 2, T, 3\)", lambda: cache.update(0, key[:, :1], key[:, :1])
    yield ValueError, "do not belong", lambda: cache.update(0, key[..., :2], key[..., :2])
    yield ValueError, "do not belong", lambda: cache.update(0, key[0], key[0])
    yield ValueError, "do not belong to one sequence", lambda: cache[1].check((2, HEADS, 1, DIM))
    yield (
        ValueError,
        r"keys have shape \(1, 2, 1, 3\), values \(1, 2, 1, 2\)",
        lambda: cache.update(0, key, key[..., :2]),
    )
    yield OutOfPages, "7 pages .* 6 of 8", lambda: cache[0].check((1, HEADS, 27, DIM))
    yield ValueError, "holds 6 positions: it cannot be cut to 7", lambda: cache.truncate(7)
    yield ValueError, "cut to -1", lambda: cache.truncate(-1)
    yield ValueError, "page 5 is free", lambda: PagedKVCache(pool, [0, 5])
    yield IndexError, r"pages 0 \.\.\. 7, not 8", lambda: PagedKVCache(pool, [0, 8])
    yield IndexError, "not -1", lambda: pool.share([0, -1])
    yield ValueError, "page 1 is given back 2 times, but has 1 holders", lambda: pool.free([0, 1, 1])
    yield ValueError, "page 7 is given back 1 times, but has 0", lambda: pool.free([7])
    yield ValueError, "-1 pages", lambda: pool.allocate(-1)
    yield OutOfPages, "7 pages of 4 positions are wanted, 6 of 8 are free: release", lambda: pool.allocate(7)
    yield ValueError, "another pool", lambda: prefixes.insert([1], other)
    yield ValueError, "holds 6 positions, not those of 7 tokens", lambda: prefixes.insert([1] * 7, cache)
    yield ValueError, "page 0 of this cache is kept for other tokens", lambda: prefixes.insert([5, 5, 5, 5], cache)
    yield ValueError, r"T >= 1, got \(0,\)", lambda: prefixes.insert([], cache)
    yield ValueError, r"T >= 1, got \(0,\)", lambda: prefixes.match([])
    yield ValueError, "float64", lambda: prefixes.match([1.0, 2.0])
    yield ValueError, r"\(1, 2\)", lambda: prefixes.match([[1, 2]])
    yield ValueError, "-1 pages", lambda: prefixes.evict(-1)
    yield ValueError, "do not belong", lambda: small_gpt(num_heads=4)(np.array([[1]]), cache)
    yield ValueError, "do not belong to one sequence", lambda: small_gpt()(np.array([[1], [2]]), cache)
    yield ValueError, "another model", lambda: small_gpt(seed=1).generate([1], 1, cache=cache)
    yield ValueError, "too small: it holds 6 of 32", lambda: small_gpt().generate([1] * 30, 1, cache=cache)


def test_after_a_mistake_all_is_as_it_was():
    model, ids = small_gpt(), np.random.default_rng(0).integers(0, 5, (1, 12))
    pool = PagePool.of(model, 8, 4)
    cache, prefixes = PagedKVCache(pool), PrefixCache(pool)

    def state():
        counts = [pool.holders(page) for page in range(8)]
        return cache.pages, [layer.length for layer in cache], counts, prefixes.pages, pool.memory.tobytes()

    with no_grad():
        cache.belong_to(model)
        model(ids[:, :6], cache)
        prefixes.insert(ids[0, :4], cache)
        before = state()
        for error, message, call in refusals(pool, cache, prefixes):
            with pytest.raises(error, match=message):
                call()
            assert state() == before, message
        np.testing.assert_allclose(model(ids[:, 6:], cache).data, model(ids).data[:, 6:], rtol=0, atol=1e-5)


def test_a_pool_is_for_a_gpt():
    with pytest.raises(TypeError, match=r"a cache is for an nn\.GPT, not Linear"):
        PagePool.of(nn.Linear(2, 2), num_pages=4)


@pytest.mark.parametrize("name", ["num_pages", "page_size", "num_layers", "num_kv_heads", "head_dim"])
def test_a_pool_without_room_is_refused_by_the_size_that_is_wrong(name):
    sizes = dict.fromkeys(["num_pages", "page_size", "num_layers", "num_kv_heads", "head_dim"], 2)
    with pytest.raises(ValueError, match=f"{name} of a pool must be at least 1, not 0"):
        PagePool(**sizes | {name: 0})


USES = {
    "length": lambda cache, _: cache.length,
    "pages": lambda cache, _: cache.pages,
    "nbytes": lambda cache, _: cache.nbytes,
    "shape": lambda cache, _: cache.shape,
    "update": lambda cache, key: cache.update(0, key, key),
    "layer's length": lambda cache, _: cache[0].length,
    "gather": lambda cache, _: cache[0].gather(),
    "fork": lambda cache, _: cache.fork(),
    "truncate": lambda cache, _: cache.truncate(0),
    "reset": lambda cache, _: cache.reset(),
    "release": lambda cache, _: cache.release(),
    "a model": lambda cache, _: small_gpt()(np.array([[1]]), cache),
    "insert": lambda cache, _: PrefixCache(cache.pool).insert([1], cache),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_released_cache_says_so_whatever_is_done_with_it(use):
    pool = PagePool(8, 4, LAYERS, HEADS, DIM)
    cache = PagedKVCache(pool)
    cache.update(0, *np.ones((2, 1, HEADS, 5, DIM), np.float32))
    cache.release()
    with no_grad(), pytest.raises(RuntimeError, match="this cache was released"):
        use(cache, np.ones((1, HEADS, 1, DIM), np.float32))
    assert (pool.free_pages, repr(cache)) == (8, "PagedKVCache: released")


def test_an_emptied_pool_may_be_filled_by_another_model():
    first, second = small_gpt(), small_gpt(seed=1)
    cache = PagedKVCache(PagePool.of(first, 8, 4))
    first.generate([1, 2], 3, cache=cache)
    with pytest.raises(ValueError, match="another model: release them all"):
        second.generate([1, 2], 3, cache=cache)
    cache.reset()
    second.generate([1, 2], 3, cache=cache)
    assert cache.length == 4
