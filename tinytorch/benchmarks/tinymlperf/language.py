"""Language models of a graph: with a memory of what was said, whole as `nn.GPT` where a graph is one."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.autograd import no_grad
from tinytorch.benchmarks.tinymlperf.graph import Graph
from tinytorch.benchmarks.tinymlperf.inference import Step
from tinytorch.benchmarks.tinymlperf.layered import layered_gpt
from tinytorch.benchmarks.tinymlperf.operations.floats import filled
from tinytorch.benchmarks.tinymlperf.operations.text import REMEMBER, Positions
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.caching.quantized import QuantizedKVCache
from tinytorch.caching.window import WindowKVCache
from tinytorch.tensor import Tensor

_BEGIN = ["embedding", "positions", "add"]
_BLOCK = ["layer_norm", "attention", "add", "layer_norm", "linear", "gelu", "linear", "add"]
_END = ["layer_norm", "linear"]


class TextProgram:
    """Scores of the next token, for ids (B, T).

    Parameters
    ----------
    graph, steps
        Of a submission that was checked: one input and one output, and all attention remembers alike.
    """

    def __init__(self, graph: Graph, steps: list[Step]) -> None:
        self.graph, self.steps = graph, steps
        self.attentions = [step for step in steps if step.operation.name in REMEMBER]
        tables = [step.arrays[0] for step in steps if step.operation.name == "positions"]
        self.max_seq_len = min((len(table) for table in tables if table is not None), default=2**16)
        self.kind = self.attentions[0].attributes["cache"] if self.attentions else "none"
        self.gpt = _as_gpt(graph, steps) or layered_gpt(graph, steps)
        self._layers = [] if self.gpt is not None else [step.layer() for step in steps]
        self._caches: Any = None
        self._said = np.empty((1, 0), np.int64)

    @no_grad()
    def whole(self, ids: np.ndarray) -> np.ndarray:
        """Return the scores (B, T, V) of whole texts."""
        self._need_room(0, ids)
        return self._forward(ids, None, 0)

    def reset(self, batch: int) -> None:
        """Forget, and expect so many texts."""
        self._said = np.empty((batch, 0), np.int64)
        self._caches = self._empty(batch)

    @no_grad()
    def step(self, ids: np.ndarray) -> np.ndarray:
        """Return the scores (B, T, V) of more tokens (B, T)."""
        past = self._said.shape[1]
        self._need_room(past, ids)
        self._said = np.concatenate([self._said, ids], axis=1)
        if self.kind == "none":
            return self._forward(self._said, None, 0)[:, past:]
        return self._forward(ids, self._caches, past)

    def generate(self, ids: np.ndarray, count: int) -> np.ndarray:
        """Return the scores (B, count, V) from which tokens are taken, the best one each time."""
        self.reset(len(ids))
        scores = []
        for _ in range(count):
            scores.append(self.step(ids)[:, -1])
            ids = scores[-1].argmax(axis=1)[:, None]
        return np.stack(scores, axis=1)

    def _need_room(self, past: int, ids: np.ndarray) -> None:
        if past + ids.shape[1] > self.max_seq_len:
            message = f"{past + ids.shape[1]} positions, and the model has {self.max_seq_len}"
            raise Rejected(Code.BAD_SHAPE, message)

    def _empty(self, batch: int) -> Any:
        if self.kind == "none" or not self.attentions:
            return None
        first = self.attentions[0]
        heads = first.attributes["num_kv_heads"]
        dim, layers = first.output.shape[2] // first.attributes["num_heads"], len(self.attentions)
        if self.kind == "window":
            sizes = first.attributes["window"], first.attributes["sinks"]
            return WindowKVCache(batch, *sizes, layers, heads, dim)
        kind = QuantizedKVCache if self.kind == "int8" else nn.KVCache
        return kind(batch, self.max_seq_len, layers, heads, dim)

    def _forward(self, ids: np.ndarray, caches: Any, past: int) -> np.ndarray:
        if self.gpt is not None:
            return np.asarray(self.gpt(ids, caches).data)
        values: dict[str, Any] = {self.graph.inputs[0].name: Tensor(ids)}
        rest = iter(caches or ())
        for step, layer in zip(self.steps, self._layers, strict=True):
            if isinstance(layer, Positions):
                layer.past = past
            more = [next(rest)] if caches is not None and isinstance(layer, nn.MultiHeadAttention) else []
            values[step.name] = layer(*(values[name] for name in step.values), *more)
        return np.asarray(values[self.graph.outputs[0]].data)


def _as_gpt(graph: Graph, steps: list[Step]) -> nn.GPT | None:
    """Return the model if the graph is that of an `nn.GPT`: the same operations on the same values."""
    ops = [step.operation.name for step in steps]
    layers, rest = divmod(len(ops) - len(_BEGIN) - len(_END), len(_BLOCK))
    if rest or layers < 1 or ops != [*_BEGIN, *_BLOCK * layers, *_END]:
        return None
    tokens, positions, summed = steps[:3]
    ids, x = graph.inputs[0].name, summed.name
    flow = [(tokens, (ids,)), (positions, (ids,)), (summed, (tokens.name, positions.name))]
    blocks = [steps[3 + 8 * i : 11 + 8 * i] for i in range(layers)]
    for norm1, attention, first, norm2, up, gelu, down, second in blocks:
        flow += [(norm1, (x,)), (attention, (norm1.name,)), (first, (x, attention.name)), (norm2, (first.name,))]
        flow += [(up, (norm2.name,)), (gelu, (up.name,)), (down, (gelu.name,)), (second, (first.name, down.name))]
        x = second.name
    norm, head = steps[-2:]
    flow += [(norm, (x,)), (head, (norm.name,))]
    width, how = summed.output.shape[2], [block[1].attributes for block in blocks]
    eps = {step.attributes["eps"] for step in steps if step.operation.name == "layer_norm"}
    plain = (
        all(step.values == wanted for step, wanted in flow)
        and graph.outputs == (head.name,)
        and all(attributes == how[0] for attributes in how)
        and eps == {1e-5}
        and head.arrays[1] is None
        and all(
            block[4].output.shape[2] == 4 * width and block[i].arrays[1] is not None for block in blocks for i in (4, 6)
        )
    )
    if not plain:
        return None
    assert tokens.arrays[0] is not None
    assert positions.arrays[0] is not None
    heads, shared = how[0]["num_heads"], how[0]["num_kv_heads"]
    sizes = len(tokens.arrays[0]), width, layers, heads, len(positions.arrays[0])
    if head.output.shape[2] != sizes[0]:
        return None
    state: dict[str, Any] = {
        "token_embedding.weight": tokens.arrays[0],
        "position_embedding.weight": positions.arrays[0],
    }
    state |= _named("norm", norm) | {"head.weight": head.arrays[0]}
    for i, (norm1, attention, _, norm2, up, _, down, _) in enumerate(blocks):
        at = f"blocks.{i}"
        for name, step in (("norm1", norm1), ("norm2", norm2), ("mlp.0", up), ("mlp.2", down)):
            state |= _named(f"{at}.{name}", step)
        names = (f"{at}.attention.{name}" for name in attention.operation.tensors)
        state.update(zip(names, attention.arrays, strict=True))
    return filled(nn.GPT(*sizes, np.random.default_rng(0), shared), **state)


def _named(path: str, step: Step) -> dict[str, Any]:
    return dict(zip((f"{path}.weight", f"{path}.bias"), step.arrays, strict=True))
