"""A whole step of a GPT as one operation: when that can be done, and with which weights."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from tinytorch.kernels.decoding import BlockWeights, DecoderWeights, Weight
from tinytorch.nn.activation import GELU
from tinytorch.nn.attention import MultiHeadAttention
from tinytorch.nn.block import TransformerBlock
from tinytorch.nn.cache import KVCache
from tinytorch.nn.linear import Embedding, Linear
from tinytorch.nn.module import Module, Sequential
from tinytorch.nn.normalization import LayerNorm
from tinytorch.ops.decoding import next_scores
from tinytorch.tensor import Tensor

if TYPE_CHECKING:
    from tinytorch.nn.transformer import GPT


def decoder_step(model: GPT, ids: np.ndarray, caches: Sequence[Any] | None) -> Tensor | None:
    """Do a step for ids (B, 1) behind caches that fit, or return None where the layers have to do it.

    They have to where it is no step, the cache is no `KVCache`, or a layer was exchanged for one of another kind. A
    TypeError or an IndexError if `ids` are no tokens of the model.
    """
    if ids.shape[1] != 1 or type(caches) is not KVCache:
        return None
    past = caches.length
    starts = np.zeros(len(ids), np.int64) if caches.starts is None else caches.starts
    weights = _weights(model)
    if weights is None or (caches.starts is not None and starts.max() > past):  # padding looks at nothing
        return None
    model.token_embedding.check(ids)
    how = caches.keys, caches.values, model.num_heads, past, starts, model.norm.eps
    scores = next_scores(model.token_embedding.weight, ids, weights, *how)
    for layer in caches:
        layer.length += 1
    return scores


class _Known:
    """The weights of a model, and what tells whether they still are."""

    def __init__(self, model: GPT) -> None:
        self.weights = _collected(model)
        self.changes, self.blocks = Module.changes, list(model.blocks)
        self.parameters = list(model.parameters())
        self.arrays = [p.data for p in self.parameters]

    def hold(self, model: GPT) -> bool:
        """Tell whether each module, and each parameter's array, is still the same one."""
        return (
            self.changes == Module.changes
            and len(model.blocks) == len(self.blocks)
            and all(map(is_, model.blocks, self.blocks))
            and all(map(is_, map(_data, self.parameters), self.arrays))
        )


_data = attrgetter("data")
_known: WeakKeyDictionary[GPT, _Known] = WeakKeyDictionary()


def _weights(model: GPT) -> DecoderWeights | None:
    known = _known.get(model)
    if known is None or not known.hold(model):
        known = _known[model] = _Known(model)
    return known.weights


def _collected(model: GPT) -> DecoderWeights | None:
    blocks = [_block(block) for block in model.blocks]
    ends = (model.token_embedding, Embedding), (model.position_embedding, Embedding), (model.norm, LayerNorm)
    head = _weight(model.head)
    norms = [norm for block in model.blocks for norm in (block.norm1, block.norm2)]
    if None in blocks or head is None or not _are(ends) or model.head.bias is not None:
        return None
    if any(norm.eps != model.norm.eps for norm in norms) or model.norm.weight.data.dtype != np.float32:
        return None
    rest = model.position_embedding.weight.data, model.norm.weight.data, model.norm.bias.data, head
    return DecoderWeights(tuple(block for block in blocks if block), *rest)


def _block(block: Any) -> BlockWeights | None:
    if not _are([(block, TransformerBlock), (block.attention, MultiHeadAttention), (block.mlp, Sequential)]):
        return None
    if len(block.mlp) != 3 or not _are([(block.norm1, LayerNorm), (block.norm2, LayerNorm), (block.mlp[1], GELU)]):
        return None
    layers = block.norm1, block.attention.in_proj, block.attention.out_proj, block.norm2, block.mlp[0], block.mlp[2]
    weights: list[Any] = [layer.weight.data if type(layer) is LayerNorm else _weight(layer) for layer in layers]
    if any(weight is None or layer.bias is None for weight, layer in zip(weights, layers, strict=True)):
        return None
    biases = [bias.data if isinstance(bias, Tensor) else bias for bias in (layer.bias for layer in layers)]
    return BlockWeights(*(array for pair in zip(weights, biases, strict=True) for array in pair))


def _weight(layer: Any) -> Weight | None:
    """Return the weight of a linear layer: a Linear's, or that of one which knows how it takes part in a step."""
    if "forward" in vars(layer):
        return None
    if type(layer) is Linear:
        return np.asarray(layer.weight.data)
    known: Weight | None = layer.for_step() if hasattr(layer, "for_step") else None
    return known


def _are(pairs: Any) -> bool:
    """Tell whether each module is of its class itself, and computes as that class does."""
    return all(type(module) is kind and "forward" not in vars(module) for module, kind in pairs)
