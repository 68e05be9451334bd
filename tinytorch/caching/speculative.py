"""Speculative decoding: a small model proposes some tokens, and the large one judges all of them in one pass.

A pass over a few positions takes hardly longer than one over a single position, since it reads the same weights. What
is accepted, and what is drawn instead of what is not, has exactly the distribution of the large model alone.

Source: Leviathan, Kalman & Matias, "Fast inference from transformers via speculative decoding" (2023), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.nn import GPT, KVCache, init
from tinytorch.nn.generation import Sampling, as_prompts, draw_from


@dataclass(frozen=True)
class Speculation:
    """A text and how it came about.

    Attributes
    ----------
    tokens
        Prompt and new tokens (T + max_new_tokens,).
    proposed, accepted
        How many tokens the small model proposed, and how many of them were taken.
    passes
        How often the large model was run.
    """

    tokens: np.ndarray
    proposed: int
    accepted: int
    passes: int

    @property
    def acceptance(self) -> float:
        """The share of proposed tokens that were taken."""
        return self.accepted / self.proposed if self.proposed else 0.0


@no_grad()
def speculate(
    model: GPT,
    draft: GPT,
    prompt_tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    draft_tokens: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    rng: np.random.Generator | None = None,
    *,
    top_p: float | None = None,
) -> Speculation:
    """Continue a prompt (T,) as `model.generate` does, with proposals of another model.

    Greedy (top_k=1), the tokens are those of the large model; otherwise they are drawn from its distribution.

    Parameters
    ----------
    draft
        A smaller model of the same vocabulary.
    draft_tokens
        How many tokens it proposes at a time.
    temperature, top_k, top_p, rng
        As in `GPT.generate`.

    Raises
    ------
    ValueError
        If the prompt is not one of token numbers, the models differ in vocabulary, the text would be too long for one
        of them, or a setting is out of its range.
    IndexError
        If a token is outside of the vocabulary.
    """
    how, prompts, rng = Sampling(temperature, top_k, top_p), as_prompts(prompt_tokens), init.generator(rng)
    if not prompts.is_single:
        raise ValueError(f"one prompt (T,) at a time, got {len(prompts.rows)}: each has tokens of its own accepted")
    if draft.vocab_size != model.vocab_size:
        raise ValueError(f"the models have vocabularies of {model.vocab_size} and {draft.vocab_size} tokens")
    if draft_tokens < 1:
        raise ValueError(f"the small model proposes 1 or more tokens at a time, not {draft_tokens}")
    limit, end = min(model.max_seq_len, draft.max_seq_len), prompts.longest + max_new_tokens
    if max_new_tokens < 0 or end > limit:
        raise ValueError(f"{prompts.longest} prompt and {max_new_tokens} new tokens: max_seq_len is {limit}")
    text, proposed, accepted, passes = prompts.rows[0].tolist(), 0, 0, 0
    caches = KVCache.of(model), KVCache.of(draft)
    while len(text) < end:
        proposals, q = _propose(draft, caches[1], text, min(draft_tokens, end - len(text) - 1), how, rng)
        p = how.probabilities(_scores(model, caches[0], text + proposals)[-len(proposals) - 1 :])
        taken = _accepted(proposals, p, q, rng)
        rest = p[taken] if taken == len(proposals) else np.maximum(p[taken] - q[taken], 0)
        text += [*proposals[:taken], int(draw_from(rest[None], rng)[0])]
        for cache in caches:  # of what was not taken nothing is kept; the last token was not fed yet
            cache.truncate(min(cache.length, len(text) - 1))
        proposed, accepted, passes = proposed + len(proposals), accepted + taken, passes + 1
    return Speculation(np.array(text, np.int64), proposed, accepted, passes)


def _scores(model: GPT, cache: KVCache, text: list[int]) -> np.ndarray:
    """Feed what the cache does not hold, and return the scores after each of these tokens (T, V)."""
    return np.asarray(model(np.array([text[cache.length :]]), cache).data[0])


def _propose(
    draft: GPT, cache: KVCache, text: list[int], count: int, how: Sampling, rng: np.random.Generator
) -> tuple[list[int], np.ndarray]:
    """Return so many tokens, and the distributions that they were drawn from (count, V)."""
    proposals: list[int] = []
    q = np.empty((count, draft.vocab_size))
    for n in range(count):
        q[n] = how.probabilities(_scores(draft, cache, text + proposals)[-1])
        proposals.append(int(draw_from(q[n : n + 1], rng)[0]))
    return proposals, q


def _accepted(proposals: list[int], p: np.ndarray, q: np.ndarray, rng: np.random.Generator) -> int:
    """Return how many are taken: each with probability p / q, up to the first that is not."""
    for n, token in enumerate(proposals):
        if rng.random() * q[n, token] >= p[n, token]:
            return n
    return len(proposals)
