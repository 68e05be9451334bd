"""The transformer block and GPT: a decoder-only language model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinytorch.autograd import is_grad_enabled, no_grad
from tinytorch.kernels.softmax import softmax
from tinytorch.nn import init
from tinytorch.nn.activation import GELU
from tinytorch.nn.attention import MultiHeadAttention, PastKeyValue
from tinytorch.nn.linear import Embedding, Linear
from tinytorch.nn.module import Module, Sequential
from tinytorch.nn.normalization import LayerNorm
from tinytorch.tensor import Tensor


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the MLP is `mlp_ratio` times as wide as x: (B, T, C) -> (B, T, C).

    Source: the order of the norms is that of Radford et al., "Language models are unsupervised multitask learners"
    (GPT-2, 2019), section 2.3.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: int = 4, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        rng = init.generator(rng)
        self.mlp_ratio = mlp_ratio
        self.norm1 = LayerNorm(embed_dim)
        self.attention = MultiHeadAttention(embed_dim, num_heads, rng=rng)
        self.norm2 = LayerNorm(embed_dim)
        self.mlp = Sequential(
            Linear(embed_dim, mlp_ratio * embed_dim, rng=rng), GELU(), Linear(mlp_ratio * embed_dim, embed_dim, rng=rng)
        )

    def forward(self, x: Tensor, past_key_value: PastKeyValue | None = None) -> Tensor:
        """Pass x (B, T, C) through attention and MLP; `past_key_value` as in `MultiHeadAttention.forward`."""
        x = x + self.attention(self.norm1(x), past_key_value)
        return x + self.mlp(self.norm2(x))


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
    rng
        Where the initial weights come from: normal with standard deviation 0.02, and 0.02 / sqrt(2 num_layers) for the
        layers that write to the residual stream, as in GPT-2.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        max_seq_len: int,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = init.generator(rng)
        self.vocab_size, self.embed_dim, self.num_layers = vocab_size, embed_dim, num_layers
        self.num_heads, self.max_seq_len = num_heads, max_seq_len
        self.token_embedding = Embedding(vocab_size, embed_dim, rng=rng)
        self.position_embedding = Embedding(max_seq_len, embed_dim, rng=rng)
        self.blocks = [TransformerBlock(embed_dim, num_heads, rng=rng) for _ in range(num_layers)]
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
        """Allocate an empty cache for each layer, for `batch_size` sequences of up to `max_seq_len` positions."""
        head_dim = self.embed_dim // self.num_heads
        return [PastKeyValue(batch_size, self.num_heads, self.max_seq_len, head_dim) for _ in range(self.num_layers)]

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
        positions = np.arange(past, past + ids.shape[1])
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
        if len(caches) != self.num_layers or len({cache.length for cache in caches}) != 1:
            shapes, lengths = [cache.shape for cache in caches], [cache.length for cache in caches]
            raise ValueError(
                f"{self.num_layers} layers need as many caches of one length, got lengths {lengths}, shapes {shapes}"
            )
        if len({id(cache) for cache in caches}) != self.num_layers:
            raise ValueError(f"{self.num_layers} layers need a cache each, got one of them twice")
        for cache in caches:
            cache.check((shape[0], self.num_heads, shape[1], self.embed_dim // self.num_heads))
        return caches[0].length

    @no_grad()
    def generate(
        self,
        prompt_tokens: Sequence[int] | np.ndarray,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        use_cache: bool = True,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Continue a prompt, one token at a time.

        Parameters
        ----------
        prompt_tokens
            Token numbers (T,), or (B, T) for B prompts of one length.
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

        Returns
        -------
        np.ndarray
            Prompt and new tokens: (T + max_new_tokens,), or (B, T + max_new_tokens).

        Raises
        ------
        ValueError
            If the prompt is empty or no token numbers, the text would be too long, or a setting is out of its range.
        IndexError
            If a token is outside of the vocabulary.
        """
        prompt = np.asarray(prompt_tokens)
        ids = np.atleast_2d(prompt)
        start, end = ids.shape[-1], ids.shape[-1] + max_new_tokens
        if 0 in ids.shape or ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"a prompt is (T,) or (B, T) token numbers with B, T >= 1, got {prompt.shape} {prompt.dtype}"
            )
        if max_new_tokens < 0 or end > self.max_seq_len:
            raise ValueError(f"{start} prompt and {max_new_tokens} new tokens: max_seq_len is {self.max_seq_len}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}; for greedy decoding use top_k=1")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        rng = init.generator(rng)
        out = np.empty((len(ids), end), np.int64)
        out[:, :start] = ids
        caches = self.empty_past_key_values(len(ids)) if use_cache else None
        for position in range(start, end):
            first = caches[0].length if caches is not None else 0  # what the caches do not hold yet
            logits = self.forward(out[:, first:position], caches).data[:, -1]
            out[:, position] = _sample(logits / temperature, top_k, rng)
        return out[0] if prompt.ndim == 1 else out


def _sample(logits: np.ndarray, top_k: int | None, rng: np.random.Generator) -> np.ndarray:
    """Draw a token for each row of logits (B, V)."""
    if top_k == 1:
        return np.asarray(logits.argmax(axis=-1))
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = np.partition(logits, -top_k, axis=-1)[:, -top_k, None]
        logits = np.where(logits < threshold, -np.inf, logits)
    cumulative = softmax(logits.astype(np.float64)).cumsum(axis=-1)
    draws = rng.random((len(logits), 1)) * cumulative[:, -1:]
    return np.asarray((cumulative <= draws).sum(axis=-1))
