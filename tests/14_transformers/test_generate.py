"""Generation: what is drawn, from which distribution, and what is refused."""

import math

import numpy as np
import pytest

from tests.models import random_gpt
from tinytorch import is_grad_enabled, nn, no_grad

VOCAB = 6


def model(seed: int = 0) -> nn.GPT:
    return random_gpt(VOCAB, 8, 2, 2, 10, seed=seed, deviation=0.4)


def next_probabilities(gpt: nn.GPT, prompt: list[int], temperature: float, top_k: int | None) -> np.ndarray:
    """The textbook's formula, in float64: keep the k best, divide by the temperature, softmax."""
    with no_grad():
        logits = gpt(np.array([prompt])).data[0, -1].astype(np.float64)
    kept = sorted(range(VOCAB), key=lambda i: -logits[i])[:top_k]
    powers = {i: math.exp((logits[i] - logits.max()) / temperature) for i in kept}
    return np.array([powers.get(i, 0.0) / math.fsum(powers.values()) for i in range(VOCAB)])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("top_k", [None, 2, 3, VOCAB, 99])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_from_the_softmax_of_the_k_best_scores(temperature, top_k, use_cache):
    """Chi-square of at most 5 degrees of freedom exceeds 25.7 once in 10,000 times; the seed is fixed."""
    gpt, prompt, draws = model(), [3, 1, 4], 4000
    prompts = np.tile(prompt, (draws, 1))
    tokens = gpt.generate(prompts, 1, temperature, top_k, use_cache, np.random.default_rng(0))[:, -1]
    expected = draws * next_probabilities(gpt, prompt, temperature, top_k)
    counts = np.bincount(tokens, minlength=VOCAB)
    assert not counts[expected == 0].any()
    possible = expected > 0
    assert (((counts - expected) ** 2)[possible] / expected[possible]).sum() < 25.7


@pytest.mark.parametrize("how", [{"top_k": 1}, {"temperature": 1e-6}])
def test_greedy_takes_the_best_token_at_every_step(how):
    gpt, prompt = model(), [0, 5]
    found = gpt.generate(prompt, 8, **how, rng=np.random.default_rng(0))
    wanted = list(prompt)
    with no_grad():
        for _ in range(8):
            wanted.append(int(gpt(np.array([wanted])).data[0, -1].argmax()))
    assert found.tolist() == wanted


def test_one_generator_seed_gives_one_text_and_another_seed_another():
    a, b, c = (
        model().generate([1], 9, temperature=3.0, rng=np.random.default_rng(seed)).tolist() for seed in (1, 1, 2)
    )
    assert a == b
    assert a != c


def test_each_prompt_of_a_batch_is_continued_by_itself():
    gpt, prompts = model(), np.random.default_rng(0).integers(0, VOCAB, (4, 3))
    together = gpt.generate(prompts, 6, top_k=1)
    assert together.shape == (4, 9)
    for prompt, row in zip(prompts, together, strict=True):
        np.testing.assert_array_equal(gpt.generate(prompt, 6, top_k=1), row)


@pytest.mark.parametrize("prompt", [[2, 3], np.array([2, 3], np.uint8), np.array([[2, 3]]), [[2, 3], [4, 5]]])
def test_the_prompt_comes_first_and_its_rank_stays(prompt):
    before = np.array(prompt)
    for new in (0, 1, 8):
        out = model().generate(prompt, new, rng=np.random.default_rng(0))
        assert out.shape == (*before.shape[:-1], before.shape[-1] + new)
        assert out.dtype == np.int64
        assert 0 <= out.min() <= out.max() < VOCAB
        np.testing.assert_array_equal(out[..., : before.shape[-1]], before)
        np.testing.assert_array_equal(np.array(prompt), before)
        assert not np.shares_memory(out, prompt)


def test_generation_records_no_graph_and_leaves_recording_on():
    gpt = model()
    seen = []
    forward = gpt.forward
    gpt.forward = lambda *args: seen.append(forward(*args)) or seen[-1]
    gpt.generate([1], 3)
    assert len(seen) == 3
    assert not any(out.requires_grad for out in seen)
    assert is_grad_enabled()


REFUSED = {
    "empty prompt": (ValueError, r"T >= 1.*\(0,\)", {"prompt_tokens": []}),
    "batch of empty prompts": (ValueError, r"\(2, 0\)", {"prompt_tokens": np.zeros((2, 0), int)}),
    "no prompts": (ValueError, r"\(0, 3\)", {"prompt_tokens": np.zeros((0, 3), int)}),
    "three axes": (ValueError, r"\(1, 1, 1\)", {"prompt_tokens": [[[1]]]}),
    "floats": (ValueError, "float64", {"prompt_tokens": [1.0]}),
    "text": (ValueError, "<U1", {"prompt_tokens": ["a"]}),
    "token outside of the vocabulary": (IndexError, f"id {VOCAB} ", {"prompt_tokens": [1, VOCAB]}),
    "negative token": (IndexError, "id -1 ", {"prompt_tokens": [-1]}),
    "too many tokens": (ValueError, "1 prompt and 10 new.*10", {"max_new_tokens": 10}),
    "negative number of tokens": (ValueError, "-1", {"max_new_tokens": -1}),
    "temperature 0": (ValueError, "0.0.*top_k=1", {"temperature": 0.0}),
    "negative temperature": (ValueError, "-1.0", {"temperature": -1.0}),
    "NaN as temperature": (ValueError, "nan", {"temperature": math.nan}),
    "top_k 0": (ValueError, "not 0", {"top_k": 0}),
}


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(("error", "message", "change"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused_with_their_value(error, message, change, use_cache):
    arguments = {"prompt_tokens": [1], "max_new_tokens": 2, "use_cache": use_cache} | change
    with pytest.raises(error, match=message):
        model().generate(**arguments)
    assert is_grad_enabled()
