"""PyTorch's GPT with a static cache: keys and values in memory allocated once, as one writes it for eager mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.bench.peers import GPT, Attention


class Generator:
    """A peer of `nn.GPT` with a cache: `step(ids)` takes the tokens (B, T) behind those seen, and returns scores."""

    def __init__(self, model: GPT, batch_size: int, max_seq_len: int) -> None:
        self.model, self.length = model, 0
        heads = model.blocks[0].attention.num_heads
        shape = batch_size, heads, max_seq_len, model.token_embedding.embedding_dim // heads
        self.caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in model.blocks]
        self.positions = torch.arange(max_seq_len)

    @torch.inference_mode()
    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the scores of the last position (B, V)."""
        model, end = self.model, self.length + ids.shape[1]
        x = model.token_embedding(ids) + model.position_embedding(self.positions[self.length : end])
        for block, cache in zip(model.blocks, self.caches, strict=True):
            x = x + self._attend(block.attention, block.norm1(x), cache)
            x = x + block.mlp(block.norm2(x))
        self.length = end
        return model.head(model.norm(x[:, -1]))

    def _attend(self, layer: Attention, x: torch.Tensor, cache: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        end = self.length + x.shape[1]
        q, k, v = (part.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2) for part in layer.in_proj(x).chunk(3, -1))
        for held, new in zip(cache, (k, v), strict=True):
            held[:, :, self.length : end] = new
        keys, values = (held[:, :, :end] for held in cache)
        # a single query sees all; of several, which come at the beginning, each sees those before it
        y = F.scaled_dot_product_attention(q, keys, values, is_causal=x.shape[1] > 1)
        return layer.out_proj(y.transpose(1, 2).flatten(2))
