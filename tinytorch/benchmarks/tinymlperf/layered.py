"""GPTs of a graph whose linear layers are nodes of their own, so that each may be in whole numbers or without zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinytorch import nn
from tinytorch.benchmarks.tinymlperf.graph import Graph
from tinytorch.benchmarks.tinymlperf.inference import Step

_LINEAR = ("linear", "dynamic_qlinear", "sparse_linear")
_BEGIN = (("embedding",), ("positions",), ("add",))
_BLOCK = (
    ("layer_norm",), _LINEAR, ("attend",), _LINEAR, ("add",), ("layer_norm",), _LINEAR, ("gelu",), _LINEAR, ("add",),
)  # fmt: skip
_END = (("layer_norm",), _LINEAR)


def layered_gpt(graph: Graph, steps: Sequence[Step]) -> nn.GPT | None:
    """Return the model if the graph is that of an `nn.GPT`: the same operations on the same values. Else None."""
    layers, rest = divmod(len(steps) - len(_BEGIN) - len(_END), len(_BLOCK))
    kinds = (*_BEGIN, *_BLOCK * layers, *_END)
    if rest or layers < 1 or not all(s.operation.name in kind for s, kind in zip(steps, kinds, strict=True)):
        return None
    if not _flows(graph, steps):
        return None
    tokens, positions, summed, *others, norm, head = steps
    blocks = [others[at : at + len(_BLOCK)] for at in range(0, len(others), len(_BLOCK))]
    attends = [block[2] for block in blocks]
    if any(step.attributes != attends[0].attributes for step in attends):
        return None
    heads, shared = (attends[0].attributes[name] for name in ("num_heads", "num_kv_heads"))
    # of next to no weights: all layers are exchanged
    model = nn.GPT(1, heads, layers, heads, 1, np.random.default_rng(0), shared)
    model.vocab_size, model.embed_dim = head.output.shape[2], summed.output.shape[2]
    model.token_embedding, model.position_embedding = tokens.layer(), positions.layer().table
    model.max_seq_len = model.position_embedding.num_embeddings
    for block, (norm1, qkv, attend, out, _, norm2, up, _, down, _) in zip(model.blocks, blocks, strict=True):
        block.norm1, block.norm2 = norm1.layer(), norm2.layer()
        block.attention.embed_dim = attend.output.shape[2]
        block.attention.head_dim = block.attention.embed_dim // heads
        block.attention.in_proj, block.attention.out_proj = qkv.layer(), out.layer()
        block.mlp = nn.Sequential(up.layer(), nn.GELU(), down.layer())
    model.norm, model.head = norm.layer(), head.layer()
    model.eval()
    return model


def _flows(graph: Graph, steps: Sequence[Step]) -> bool:
    """Tell whether each node works on the result of the one before, and sums add that to what they added last."""
    tokens, positions, summed, *others = steps
    ids, last = (graph.inputs[0].name,), summed.name
    if (tokens.values, positions.values) != (ids, ids) or summed.values != (tokens.name, positions.name):
        return False
    for before, step in zip(steps[2:], others, strict=False):
        is_sum = step.operation.name == "add"
        if step.values != ((last, before.name) if is_sum else (before.name,)):
            return False
        last = step.name if is_sum else last
    of_one_width = steps[0].output.shape[2] == others[2].output.shape[2]
    return of_one_width and graph.outputs == (steps[-1].name,)
