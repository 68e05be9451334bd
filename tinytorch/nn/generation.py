"""Generation: prompts of any lengths, what is drawn from the scores, and the loop that does one after another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.kernels.softmax import softmax
from tinytorch.nn.cache import KVCache

if TYPE_CHECKING:
    from tinytorch.nn.transformer import GPT

Prompt = Sequence[int] | np.ndarray | Sequence[Sequence[int]] | Sequence[np.ndarray]
ENDED = -1  # instead of a token, where a text has ended


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from scores.

    Parameters
    ----------
    temperature
        Divides the scores; must be positive.
    top_k
        Draw only from the k best; 1 is greedy.
    top_p
        Draw only from the best that together have this probability, the last of them included. It counts after
        `temperature` and `top_k`. Source: Holtzman et al., "The curious case of neural text degeneration" (2020),
        section 3.1.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}; for greedy decoding use top_k=1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability above 0 and up to 1, not {self.top_p}")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the distribution that a token is drawn from, float64, for scores (..., V)."""
        if self.top_k == 1:
            p = np.zeros(logits.shape)
            np.put_along_axis(p, logits.argmax(axis=-1)[..., None], 1.0, -1)
            return p
        logits = (logits / np.float64(self.temperature)).astype(np.float64)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            threshold = np.partition(logits, -self.top_k, axis=-1)[..., -self.top_k, None]
            logits = np.where(logits < threshold, -np.inf, logits)
        p = softmax(logits)
        if self.top_p is not None:
            order = np.argsort(-p, axis=-1, kind="stable")
            ranked = np.take_along_axis(p, order, -1)
            ranked[ranked.cumsum(axis=-1) - ranked >= self.top_p] = 0  # those before it are enough
            np.put_along_axis(p, order, ranked / ranked.sum(axis=-1, keepdims=True), -1)
        return p

    def draw(self, logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a token for each row of scores (B, V)."""
        if self.top_k == 1:
            return np.asarray(logits.argmax(axis=-1))
        return draw_from(self.probabilities(logits), rng)


def draw_from(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a token for each row of weights (B, V), which need not add up to 1."""
    cumulative = p.cumsum(axis=-1)
    draws = rng.random((len(p), 1)) * cumulative[:, -1:]
    return np.asarray((cumulative <= draws).sum(axis=-1))


@dataclass(frozen=True)
class Prompts:
    """Prompts as rows of token numbers, int64 (T,) each."""

    rows: list[np.ndarray]
    is_single: bool

    @property
    def are_unequal(self) -> bool:
        """Whether they differ in length."""
        return len({len(row) for row in self.rows}) > 1

    @property
    def longest(self) -> int:
        """The length of the longest."""
        return max(len(row) for row in self.rows)

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return them with zeros in front, so that all end together (B, longest), and where each begins (B,)."""
        starts = np.array([self.longest - len(row) for row in self.rows])
        ids = np.zeros((len(self.rows), self.longest), np.int64)
        for line, row, start in zip(ids, self.rows, starts, strict=True):
            line[start:] = row
        return ids, starts


def as_prompts(prompt: Prompt) -> Prompts:
    """Take one prompt (T,), several of one length (B, T), or a list of several. A ValueError if they are no tokens."""
    rows = [np.asarray(row) for row in prompt] if isinstance(prompt, Sequence) else []
    if len({row.shape for row in rows}) < 2:
        whole = np.asarray(prompt)
        ids = np.atleast_2d(whole)
        if 0 in ids.shape or ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"a prompt is (T,) or (B, T) token numbers with B, T >= 1, got {whole.shape} {whole.dtype}"
            )
        return Prompts(list(ids.astype(np.int64)), whole.ndim == 1)
    for number, row in enumerate(rows):
        if row.ndim != 1 or not row.size or row.dtype.kind not in "iu":
            raise ValueError(f"prompt {number} is no (T,) token numbers with T >= 1, but {row.shape} {row.dtype}")
    return Prompts([row.astype(np.int64) for row in rows], False)


def new_tokens(
    model: GPT,
    prompts: Prompts,
    max_new_tokens: int,
    how: Sampling,
    use_cache: bool,
    rng: np.random.Generator,
    stop_tokens: Collection[int],
    cache: KVCache | None,
) -> Iterator[np.ndarray]:
    """Check what `GPT.generate` promises to check, and return an iterator of new tokens (B,), `ENDED` behind an end."""
    past = cache.length if cache is not None else 0
    start = past + prompts.longest
    if max_new_tokens < 0 or start + max_new_tokens > model.max_seq_len:
        before = f"{past} cached, " if past else ""
        raise ValueError(
            f"{before}{prompts.longest} prompt and {max_new_tokens} new tokens: max_seq_len is {model.max_seq_len}"
        )
    for row in prompts.rows:
        outside = row[(row < 0) | (row >= model.vocab_size)]
        if outside.size:
            raise IndexError(f"id {outside[0]} is outside of the vocabulary of {model.vocab_size} tokens")
    if cache is not None:
        _check_cache(cache, model, prompts, max_new_tokens, use_cache)
    ids, starts = prompts.padded()
    if not use_cache and starts.any():
        raise ValueError("prompts of different lengths need the cache, which knows where each begins: use_cache=True")
    if use_cache and cache is None:
        cache = KVCache.of(model, len(ids))
    if cache is not None and starts.any():
        cache.begin_at(starts)
    return _loop(model, ids, max_new_tokens, how, rng, frozenset(stop_tokens), cache)


def _check_cache(cache: KVCache, model: GPT, prompts: Prompts, max_new_tokens: int, use_cache: bool) -> None:
    if not use_cache:
        raise ValueError("a cache was given, and use_cache=False: leave out one of them")
    attention = model.blocks[0].attention
    wanted = (model.num_layers, len(prompts.rows), attention.num_kv_heads, attention.head_dim)
    layers, batch, heads, capacity, dim = cache.shape
    if (layers, batch, heads, dim) != wanted:
        raise ValueError(
            f"(layers, batch, heads, head_dim) of this model and {wanted[1]} prompts are {wanted}, those of the cache "
            f"{(layers, batch, heads, dim)}"
        )
    fed = prompts.longest + max(max_new_tokens - 1, 0)  # the last token is drawn and never fed
    if cache.length + fed > capacity:
        raise ValueError(f"the cache is too small: it holds {cache.length} of {capacity} positions, {fed} would come")
    if prompts.are_unequal and not hasattr(cache, "begin_at"):
        raise ValueError(f"prompts of different lengths need an nn.KVCache, not {type(cache).__name__}")
    if cache.length and prompts.are_unequal:
        raise ValueError("prompts that continue what a cache holds must be of one length")
    cache.belong_to(model)


def _loop(
    model: GPT,
    ids: np.ndarray,
    max_new_tokens: int,
    how: Sampling,
    rng: np.random.Generator,
    stop: frozenset[int],
    cache: KVCache | None,
) -> Iterator[np.ndarray]:
    ended = np.zeros(len(ids), bool)
    fed = ids
    for _ in range(max_new_tokens):
        with no_grad():  # not around the loop: the caller runs between two tokens
            logits = model(fed, cache).data[:, -1]
        tokens = drawn = how.draw(logits, rng)
        if stop:
            tokens = np.where(ended, ENDED, drawn)
        yield tokens
        if stop:
            ended |= np.isin(tokens, list(stop))
            if ended.all():
                return
            drawn = np.where(tokens == ENDED, 0, tokens)  # a text that has ended goes on unseen
        column = drawn[:, None]
        fed = column if cache is not None else np.concatenate([fed, column], axis=1)
