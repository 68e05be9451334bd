"""GPT: a decoder-only language model."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from tinytorch.autograd import is_grad_enabled
from tinytorch.nn import init
from tinytorch.nn.attention import PastKeyValue
from tinytorch.nn.block import TransformerBlock
from tinytorch.nn.cache import KVCache, Layers
from tinytorch.nn.decoder import decoder_step
from tinytorch.nn.generation import Prompt, Sampling, as_prompts, new_tokens
from tinytorch.nn.linear import Embedding, Linear
from tinytorch.nn.module import Module
from tinytorch.nn.normalization import LayerNorm
from tinytorch.tensor import Tensor


class GPT(Module):
    """A language model: token numbers (B, T) -> a score for every next token (B, T, vocab_size).

    Parameters
    ----------
    vocab_size
        Number of different tokens.
    embed_dim, num_layers, num_heads
        Width of the residual stream, number of blocks, heads of each block.
    max_seq_len
        Longest sequence: the number of learned positions.
    num_kv_heads
        Heads of keys and values in each block, if fewer: see `MultiHeadAttention`.
    rng
        Where the initial weights come from: normal with standard deviation 0.02, and 0.02 / sqrt(2 num_layers) for the
        layers that write to the residual stream, as in GPT-2.

    Raises
    ------
    ValueError
        If `embed_dim` is no multiple of `num_heads`, or `num_heads` none of `num_kv_heads`.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        max_seq_len: int,
        rng: np.random.Generator | None = None,
        num_kv_heads: int | None = None,
    ) -> None:
        super().__init__()
        rng = init.generator(rng)
        self.vocab_size, self.embed_dim, self.num_layers = vocab_size, embed_dim, num_layers
        self.num_heads, self.max_seq_len = num_heads, max_seq_len
        self.token_embedding = Embedding(vocab_size, embed_dim, rng=rng)
        self.position_embedding = Embedding(max_seq_len, embed_dim, rng=rng)
        self.blocks = [
            TransformerBlock(embed_dim, num_heads, rng=rng, num_kv_heads=num_kv_heads) for _ in range(num_layers)
        ]
        self.norm = LayerNorm(embed_dim)
        self.head = Linear(embed_dim, vocab_size, bias=False, rng=rng)
        self._initialize(rng)

    def _initialize(self, rng: np.random.Generator) -> None:
        for path, parameter in self.named_parameters():
            if path.endswith("bias"):
                parameter.data[...] = 0.0
            elif parameter.ndim == 2:
                to_residual = path.endswith(("out_proj.weight", "mlp.2.weight"))
                std = 0.02 / math.sqrt(2 * self.num_layers) if to_residual else 0.02
                parameter.data[...] = rng.normal(0.0, std, parameter.shape)

    def empty_past_key_values(self, batch_size: int) -> list[PastKeyValue]:
        """Allocate an empty cache for each layer, for `batch_size` sequences of up to `max_seq_len` positions.

        A ValueError if `batch_size` is below 1.
        """
        sizes = self.blocks[0].attention.num_kv_heads, self.max_seq_len, self.embed_dim // self.num_heads
        return [PastKeyValue(batch_size, *sizes) for _ in range(self.num_layers)]

    def forward(self, ids: np.ndarray, past_key_values: Sequence[PastKeyValue] | None = None) -> Tensor:
        """Score the next token at each position.

        Parameters
        ----------
        ids
            Token numbers (B, T).
        past_key_values
            One cache for each layer. Then `ids` holds only the positions after the cached ones, and the caches are
            extended by them.

        Raises
        ------
        ValueError
            If `ids` is not (B, T), longer than `max_seq_len`, or a cache does not fit; every cache stays as it was.
        IndexError
            If a token is outside of the vocabulary.
        TypeError
            If `ids` are no integers.
        RuntimeError
            With caches, where a gradient would be needed: use `no_grad`.
        """
        ids = np.asarray(ids.data if isinstance(ids, Tensor) else ids)
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"GPT takes token numbers of shape (B, T) with T >= 1, got {ids.shape}")
        past = self._check_past(ids.shape, past_key_values)
        if past + ids.shape[1] > self.max_seq_len:
            raise ValueError(f"{past} + {ids.shape[1]} positions, but this model has max_seq_len {self.max_seq_len}")
        if (scores := decoder_step(self, ids, past_key_values)) is not None:
            return scores
        positions = np.arange(past, past + ids.shape[1])
        if past_key_values is not None and (starts := past_key_values[0].starts) is not None:
            positions = np.maximum(positions - starts[:, None], 0)  # (B, T); padding has none
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, past_key_values[i] if past_key_values is not None else None)
        return self.head(self.norm(x))

    def _check_past(self, shape: tuple[int, ...], caches: Sequence[PastKeyValue] | None) -> int:
        """Return the number of cached positions. Checks every layer before any of them is changed."""
        if caches is None:
            return 0
        if is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            raise RuntimeError("no gradient flows through past_key_values: call the model under tinytorch.no_grad()")
        lengths = [cache.length for cache in caches]
        if len(lengths) != self.num_layers or lengths.count(lengths[0]) != self.num_layers:
            shapes = [cache.shape for cache in caches]
            raise ValueError(
                f"{self.num_layers} layers need as many caches of one length, got lengths {lengths}, shapes {shapes}"
            )
        of_one_shape = isinstance(caches, Layers)
        if not of_one_shape and len({id(cache) for cache in caches}) != self.num_layers:
            raise ValueError(f"{self.num_layers} layers need a cache each, got one of them twice")
        new = shape[0], self.blocks[0].attention.num_kv_heads, shape[1], self.embed_dim // self.num_heads
        for cache in caches[:1] if of_one_shape else caches:
            cache.check(new)
        if (belong_to := getattr(caches, "belong_to", None)) is not None:
            belong_to(self)
        return lengths[0]

    def stream(
        self,
        prompt_tokens: Prompt,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        use_cache: bool = True,
        rng: np.random.Generator | None = None,
        *,
        top_p: float | None = None,
        stop_tokens: Collection[int] = (),
        cache: KVCache | None = None,
    ) -> Iterator[int | np.ndarray]:
        """Yield the new tokens as they come: an int, or (B,) for a batch, with -1 where a text has ended already.

        Arguments and errors are those of `generate`; errors come with the call, before the first token.
        """
        how = Sampling(temperature, top_k, top_p)
        prompts = as_prompts(prompt_tokens)
        tokens = new_tokens(self, prompts, max_new_tokens, how, use_cache, init.generator(rng), stop_tokens, cache)
        return (int(row[0]) for row in tokens) if prompts.is_single else tokens

    def generate(
        self,
        prompt_tokens: Prompt,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        use_cache: bool = True,
        rng: np.random.Generator | None = None,
        *,
        top_p: float | None = None,
        stop_tokens: Collection[int] = (),
        cache: KVCache | None = None,
    ) -> Any:
        """Continue a prompt, one token at a time.

        Parameters
        ----------
        prompt_tokens
            Token numbers (T,), or (B, T) for B prompts; B prompts of different lengths as a list of them.
        max_new_tokens
            How many to add; T + max_new_tokens must not exceed `max_seq_len`.
        temperature
            Divides the scores; must be positive.
        top_k
            Draw only from the k best tokens; 1 is greedy.
        use_cache
            Keep keys and values, so that each step computes one position. The tokens are the same without.
        rng
            Where the draws come from; pass one to get the same text again.
        top_p
            Draw only from the best tokens that together have this probability.
        stop_tokens
            A text ends with the first of these.
        cache
            Where keys and values are kept; it may hold a text already, which the prompt then continues. Afterwards it
            holds all but the last token. Left out, one is made.

        Returns
        -------
        np.ndarray or list
            Prompt and new tokens: (T + max_new_tokens,), or fewer if a stop token came; for a batch
            (B, T + max_new_tokens), or a list of B arrays if their lengths differ or stop tokens are given.

        Raises
        ------
        ValueError
            If the prompt is empty or no token numbers, the text would be too long, a setting is out of its range, or
            the cache does not fit the model or the batch; it is unchanged then.
        IndexError
            If a token is outside of the vocabulary.
        """
        prompts, settings = as_prompts(prompt_tokens), (temperature, top_k, use_cache, rng)
        steps = self.stream(prompt_tokens, max_new_tokens, *settings, top_p=top_p, stop_tokens=stop_tokens, cache=cache)
        new = np.array([np.atleast_1d(tokens) for tokens in steps], np.int64).reshape(-1, len(prompts.rows)).T
        texts = [np.concatenate([row, more[more >= 0]]) for row, more in zip(prompts.rows, new, strict=True)]
        if prompts.is_single:
            return texts[0]
        return texts if prompts.are_unequal or stop_tokens else np.stack(texts)
