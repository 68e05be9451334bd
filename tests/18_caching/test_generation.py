"""Generation with a cache: prompts of any lengths, tokens as they come, ends, and continued texts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import random_gpt
from tinytorch import is_grad_enabled, nn, no_grad
from tinytorch.nn.generation import Sampling

VOCAB = 6
few = settings(max_examples=20)
prompts = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5), min_size=1, max_size=4)


def model(seed: int = 0, max_seq_len: int = 16) -> nn.GPT:
    return random_gpt(VOCAB, 8, 2, 2, max_seq_len, seed=seed, deviation=0.4)


# Prompts of different lengths


@few
@given(prompts)
def test_each_prompt_is_continued_as_if_it_were_alone(rows):
    gpt = model()
    together = gpt.generate(rows, 6, top_k=1)
    for row, text in zip(rows, together, strict=True):
        np.testing.assert_array_equal(text, gpt.generate(row, 6, top_k=1, use_cache=False))


def test_prompts_of_one_length_give_an_array_and_others_a_list():
    assert model().generate([[1, 2], [3, 4]], 2).shape == (2, 4)
    texts = model().generate([[1, 2], [3]], 2)
    assert [len(text) for text in texts] == [4, 3]


# As they come


def test_streamed_tokens_are_those_that_generate_returns():
    gpt = model()
    how = {"temperature": 2.0, "top_k": 4}
    whole = gpt.generate([1, 2], 9, **how, rng=np.random.default_rng(0))
    streamed = list(gpt.stream([1, 2], 9, **how, rng=np.random.default_rng(0)))
    assert all(type(token) is int for token in streamed)
    assert streamed == whole[2:].tolist()
    rows = list(gpt.stream([[1, 2], [3, 4]], 9, top_k=1))
    np.testing.assert_array_equal(np.stack(rows, axis=1), gpt.generate([[1, 2], [3, 4]], 9, top_k=1)[:, 2:])


def test_a_token_is_computed_when_it_is_asked_for():
    gpt, passes = model(), []
    forward = gpt.forward
    gpt.forward = lambda *args: passes.append(1) or forward(*args)
    stream = gpt.stream([1], 9)
    assert not passes
    next(stream)
    next(stream)
    assert len(passes) == 2
    assert is_grad_enabled()


def test_a_mistake_comes_with_the_call_and_not_with_the_first_token():
    with pytest.raises(ValueError, match="temperature"):
        model().stream([1], 2, temperature=-1)
    with pytest.raises(IndexError, match="id 9"):
        model().stream([9], 2)


# Ends


def test_a_text_ends_with_its_first_stop_token():
    gpt = model()
    whole = gpt.generate([1], 12, temperature=3.0, rng=np.random.default_rng(1)).tolist()
    stop = whole[5]
    ended = gpt.generate([1], 12, temperature=3.0, rng=np.random.default_rng(1), stop_tokens=[stop]).tolist()
    assert ended == whole[: whole.index(stop, 1) + 1]


@few
@given(prompts, st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=3))
def test_in_a_batch_each_text_ends_by_itself(rows, stop):
    gpt = model()
    texts = gpt.generate(rows, 8, top_k=1, stop_tokens=stop)
    for row, text in zip(rows, texts, strict=True):
        np.testing.assert_array_equal(text, gpt.generate(row, 8, top_k=1, stop_tokens=stop))


def test_no_step_is_done_when_all_have_ended():
    gpt, stops = model(), set(range(VOCAB))
    assert len(list(gpt.stream([[1], [2]], 9, stop_tokens=stops))) == 1


def test_where_a_text_has_ended_the_stream_says_so():
    gpt = model()
    how = {"temperature": 3.0, "stop_tokens": [3]}
    rows = np.stack(list(gpt.stream([[1], [2], [4]], 12, **how, rng=np.random.default_rng(2))), axis=1)
    assert (rows[:, 1:] == -1).any()
    for row in rows:
        end = row.tolist().index(3) + 1 if 3 in row else len(row)
        assert (row[:end] >= 0).all()
        assert (row[end:] == -1).all()


# What is drawn


def brute_force(logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None) -> np.ndarray:
    """The definition, one token at a time."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    powers = {i: np.exp((logits[i] - max(logits)) / temperature) for i in order}
    p = {i: power / sum(powers.values()) for i, power in powers.items()}
    kept, held = [], 0.0
    for i in order:
        if top_p is not None and held >= top_p:
            break
        kept.append(i)
        held += p[i]
    return np.array([p.get(i, 0) / held if i in kept else 0 for i in range(len(logits))])


@given(st.integers(0, 1000), st.floats(0.2, 5), st.none() | st.integers(1, 9), st.none() | st.floats(0.01, 1))
def test_the_distribution_is_the_definition(seed, temperature, top_k, top_p):
    logits = np.random.default_rng(seed).normal(0, 2, (3, 8))
    p = Sampling(temperature, top_k, top_p).probabilities(logits)
    for row, found in zip(logits, p, strict=True):
        np.testing.assert_allclose(found, brute_force(row, temperature, top_k, top_p), atol=1e-9)


def test_drawn_tokens_have_that_distribution():
    """Chi-square of at most 7 degrees of freedom exceeds 29.9 once in 10,000 times; the seed is fixed."""
    logits, how, draws = np.random.default_rng(0).normal(0, 1, 8), Sampling(1.5, None, 0.8), 20_000
    tokens = how.draw(np.tile(logits, (draws, 1)), np.random.default_rng(1))
    expected = draws * brute_force(logits, 1.5, None, 0.8)
    counts = np.bincount(tokens, minlength=8)
    assert not counts[expected == 0].any()
    assert 0 < (expected == 0).sum() < 7
    assert ((counts - expected)[expected > 0] ** 2 / expected[expected > 0]).sum() < 29.9


# A text that goes on


def test_a_cache_that_is_given_holds_all_but_the_last_token_and_the_text_goes_on():
    gpt = model()
    cache = nn.KVCache.of(gpt)
    first = gpt.generate([1, 2], 4, top_k=1, cache=cache)
    assert cache.length == 5
    second = gpt.generate([first[-1], 3], 4, top_k=1, cache=cache)
    assert cache.length == 5 + 2 + 3
    whole = np.concatenate([first, second[1:]])
    np.testing.assert_array_equal(gpt.generate(whole[:7], 4, top_k=1, use_cache=False), whole)


def test_an_empty_cache_may_be_smaller_than_the_model_allows():
    gpt = model()
    cache = nn.KVCache.of(gpt, max_seq_len=5)
    assert len(gpt.generate([1, 2], 4, cache=cache)) == 6  # the last one is never fed


def refusals(gpt: nn.GPT, cache: nn.KVCache):
    yield ValueError, "5 of 8", lambda: gpt.generate([1, 2], 4, cache=cache)
    yield ValueError, "max_seq_len is 16", lambda: gpt.generate([1, 2], 12, cache=cache)
    yield ValueError, "2 prompts are", lambda: gpt.generate([[1], [2]], 1, cache=cache)
    yield ValueError, "another model", lambda: model(1).generate([1], 1, cache=cache)
    yield ValueError, "use_cache=False", lambda: gpt.generate([1], 1, use_cache=False, cache=cache)
    yield ValueError, "T >= 1", lambda: gpt.generate([], 1, cache=cache)
    yield IndexError, "id 6", lambda: gpt.generate([6], 1, cache=cache)
    yield IndexError, "id -1", lambda: gpt.generate([-1], 1, cache=cache)
    yield ValueError, "temperature", lambda: gpt.generate([1], 1, temperature=0, cache=cache)
    yield ValueError, "temperature", lambda: gpt.generate([1], 1, temperature=-0.5, cache=cache)
    yield ValueError, "top_p", lambda: gpt.generate([1], 1, top_p=0, cache=cache)
    yield ValueError, "top_p", lambda: gpt.generate([1], 1, top_p=1.5, cache=cache)


def test_after_a_mistake_the_cache_goes_on_as_if_nothing_had_been():
    gpt = model()
    cache = nn.KVCache.of(gpt, max_seq_len=8)
    text = gpt.generate([1, 2], 4, top_k=1, cache=cache)
    before = [(layer.length, layer.keys.tobytes()) for layer in cache]
    for error, message, call in refusals(gpt, cache):
        with pytest.raises(error, match=message):
            call()
        assert [(layer.length, layer.keys.tobytes()) for layer in cache] == before
    more = gpt.generate(text[-1:], 3, top_k=1, cache=cache)
    np.testing.assert_array_equal(gpt.generate([1, 2], 7, top_k=1), [*text, *more[1:]])


OTHERS = {
    "unequal without a cache": (ValueError, "use_cache=True", {"prompt_tokens": [[1], [2, 3]], "use_cache": False}),
    "an empty one among others": (ValueError, r"prompt 1 .*\(0,\)", {"prompt_tokens": [[1], []]}),
    "a longer text among others": (ValueError, "15 prompt and 2 new", {"prompt_tokens": [[1], [1] * 15]}),
    "a wrong token among others": (IndexError, "id 6", {"prompt_tokens": [[1, 2], [6]]}),
    "floats among others": (ValueError, "prompt 0", {"prompt_tokens": [[1.0], [1, 2]]}),
}


@pytest.mark.parametrize(("error", "message", "change"), OTHERS.values(), ids=OTHERS)
def test_bad_prompts_are_refused(error, message, change):
    with pytest.raises(error, match=message):
        model().generate(**{"max_new_tokens": 2} | change)


def test_unequal_prompts_cannot_continue_a_cache_that_holds_something():
    gpt, cache = model(), nn.KVCache.of(model(), 2)
    gpt.generate([[1], [2]], 2, cache=cache)
    with pytest.raises(ValueError, match="of one length"):
        gpt.generate([[1], [2, 3]], 2, cache=cache)


def test_stopping_early_leaves_a_cache_that_can_go_on():
    gpt = model()
    cache = nn.KVCache.of(gpt)
    some = list(itertools.islice(gpt.stream([1, 2], 10, top_k=1, cache=cache), 3))
    assert cache.length == 4
    with no_grad():
        logits = gpt(np.array([[some[-1]]]), cache).data[0, -1]
        whole = gpt(np.array([[1, 2, *some]])).data[0, -1]
    np.testing.assert_allclose(logits, whole, rtol=0, atol=1e-5)
