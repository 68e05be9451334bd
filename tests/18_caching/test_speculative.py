"""Proposals of a small model change what is computed, and nothing about what is written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import random_gpt
from tinytorch import nn, no_grad
from tinytorch.caching.speculative import speculate
from tinytorch.nn.generation import Sampling

VOCAB = 5


def gpt(seed: int, width: int = 8, layers: int = 2, vocab: int = VOCAB, max_seq_len: int = 20) -> nn.GPT:
    return random_gpt(vocab, width, layers, 2, max_seq_len, seed=seed, deviation=0.4)


@settings(max_examples=25)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 6), st.integers(1, 8), st.integers(0, 12))
def test_greedy_tokens_are_those_of_the_large_model(seed, other, draft_tokens, length, new):
    model, draft = gpt(seed), gpt(other, 4, 1)
    prompt = np.random.default_rng(seed).integers(0, VOCAB, length)
    found = speculate(model, draft, prompt, new, draft_tokens, top_k=1)
    np.testing.assert_array_equal(found.tokens, model.generate(prompt, new, top_k=1))
    assert 0 <= found.accepted <= found.proposed
    assert found.passes + found.accepted == new  # each pass adds one token to those that it takes


def test_a_draft_that_is_the_model_itself_is_always_right():
    model = gpt(0)
    found = speculate(model, model, [1, 2], 12, draft_tokens=3, top_k=1)
    assert found.acceptance == 1
    assert found.passes == 3  # 3 + 1 tokens each


@pytest.mark.parametrize("how", [{}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.8}])
def test_sampled_tokens_have_the_distribution_of_the_large_model(how):
    """Chi-square of 24 degrees of freedom exceeds 60 less than once in 10,000 times; the seed is fixed."""
    model, draft, draws = gpt(1), gpt(2, 4, 1), 4000
    rng, sampling = np.random.default_rng(0), Sampling(**how)
    pairs = [tuple(speculate(model, draft, [3, 1], 2, 2, rng=rng, **how).tokens[2:].tolist()) for _ in range(draws)]
    with no_grad():
        first = sampling.probabilities(model(np.array([[3, 1]])).data[0, -1])
        after = [sampling.probabilities(model(np.array([[3, 1, token]])).data[0, -1]) for token in range(VOCAB)]
    expected = draws * first[:, None] * np.stack(after)
    counts = np.zeros((VOCAB, VOCAB))
    for pair in pairs:
        counts[pair] += 1
    assert not counts[expected == 0].any()
    possible = expected > 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 60


def test_the_large_model_sees_each_proposal_once_and_all_in_one_pass():
    model, draft, fed = gpt(1), gpt(2, 4, 1), []
    forward = model.forward
    model.forward = lambda ids, *rest: fed.append(ids.shape[1]) or forward(ids, *rest)
    found = speculate(model, draft, [1, 2, 3], 10, draft_tokens=3, top_k=1)
    assert len(fed) == found.passes
    assert fed[0] == 3 + 3
    assert all(count <= 3 + 1 for count in fed[1:])
    assert sum(fed) == 3 + found.proposed + found.passes - 1


REFUSED = {
    "other vocabulary": ({"draft": gpt(0, vocab=6)}, "5 and 6"),
    "no proposals": ({"draft_tokens": 0}, "not 0"),
    "too long": ({"max_new_tokens": 19}, "max_seq_len is 20"),
    "too long for the small one": ({"draft": gpt(0, max_seq_len=6)}, "max_seq_len is 6"),
    "negative": ({"max_new_tokens": -1}, "-1 new"),
    "several prompts": ({"prompt_tokens": [[1], [2]]}, "one prompt"),
    "empty prompt": ({"prompt_tokens": []}, "T >= 1"),
    "temperature": ({"temperature": 0.0}, "temperature"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(change, message):
    given_ = {"model": gpt(1), "draft": gpt(2), "prompt_tokens": [1, 2], "max_new_tokens": 5} | change
    with pytest.raises(ValueError, match=message):
        speculate(**given_)


def test_a_token_outside_of_the_vocabulary_is_refused():
    with pytest.raises(IndexError, match="id 7"):
        speculate(gpt(1), gpt(2), [7], 3)
