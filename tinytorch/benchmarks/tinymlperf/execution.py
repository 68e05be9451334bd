"""`Program`: a graph made ready to run, by the fastest means that this package has for it.

Chains of layers become what chapters 15 to 17 build: whole numbers a `QuantizedModel`, zeros a `SparseModel`, the rest
an inference `Plan`. A graph that is a GPT becomes one, with the cache that its attention asks for. What is neither is
done node by node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.autograd import no_grad
from tinytorch.benchmarks.tinymlperf.graph import Graph
from tinytorch.benchmarks.tinymlperf.inference import Step, follow
from tinytorch.benchmarks.tinymlperf.language import TextProgram
from tinytorch.benchmarks.tinymlperf.operations.text import REMEMBER
from tinytorch.compression.sparse_layers import SparseConv2d, SparseLinear
from tinytorch.compression.sparse_model import to_sparse
from tinytorch.compression.sparse_or_dense import BreakEven
from tinytorch.kernels.backend import current_backend
from tinytorch.quantization.model import QuantizedModel
from tinytorch.tensor import Tensor

SPARSE_FROM = BreakEven(0.5, 0.5)  # not measured here: the same submission has to run the same way everywhere
_CODES = ("qconv2d", "qlinear", "qpool2d")


class Program:
    """What a submission computes.

    Parameters
    ----------
    graph, arrays
        Of a submission that was checked.

    Raises
    ------
    Rejected
        If they do not fit together.
    """

    def __init__(self, graph: Graph, arrays: Mapping[str, np.ndarray]) -> None:
        self.graph = graph
        self.steps = follow(graph, arrays)
        self.text: TextProgram | None = None
        self._parts: list[Any] | None = None
        if any(step.operation.name in ("embedding", "positions", *REMEMBER) for step in self.steps):
            self.text = TextProgram(graph, self.steps)
        elif _is_chain(graph, self.steps):
            self._parts = [_compiled(group) for group in _groups(self.steps)]
        else:
            self._layers = [step.layer() for step in self.steps]

    @no_grad()
    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for a batch of inputs by name; a language model remembers nothing of them."""
        if self.text is not None:
            return [self.text.whole(inputs[self.graph.inputs[0].name])]
        if self._parts is not None:
            x = inputs[self.graph.inputs[0].name]
            for part in self._parts:
                x = part(x)
            return [np.ascontiguousarray(x)]
        values: dict[str, Any] = {name: Tensor(array) for name, array in inputs.items()}
        for step, layer in zip(self.steps, self._layers, strict=True):
            values[step.name] = layer(*(values[name] for name in step.values))
        return [np.ascontiguousarray(values[name].data) for name in self.graph.outputs]

    def reset(self, batch: int) -> None:
        """Let a language model forget, and expect so many texts."""
        self._text().reset(batch)

    def step(self, ids: np.ndarray) -> np.ndarray:
        """Return a language model's scores (B, T, V) for more tokens (B, T) of the texts that it remembers."""
        return self._text().step(ids)

    def generate(self, ids: np.ndarray, count: int) -> np.ndarray:
        """Return the scores (B, count, V) from which the next tokens are taken, the best one each time."""
        return self._text().generate(ids, count)

    def _text(self) -> TextProgram:
        if self.text is None:
            raise TypeError("this submission is no language model: it has no steps")
        return self.text


def _is_chain(graph: Graph, steps: list[Step]) -> bool:
    """Tell whether each node works on the result of the one before, and the last one's is the output."""
    names = [graph.inputs[0].name, *(step.name for step in steps)]
    follows = all(step.values == (before,) for step, before in zip(steps, names[:-1], strict=True))
    return follows and len(graph.inputs) == 1 and graph.outputs == (names[-1],)


def _groups(steps: list[Step]) -> list[list[Step]]:
    """Cut a chain where numbers become codes, where codes become numbers, and around layers that round themselves."""
    groups: list[list[Step]] = []
    for step in steps:
        whole = step.operation.name == "quantize" or step.inputs[0].dtype == "uint8"
        late = step.operation.name.endswith("conv2d") and groups and _has_linear(groups[-1])
        alone = bool(groups) and _rounds(step) != _rounds(groups[-1][0])
        if not groups or late or alone or step.operation.name == "quantize" or whole != _is_whole(groups[-1]):
            groups.append([])
        groups[-1].append(step)
    return groups


def _has_linear(group: list[Step]) -> bool:
    """Tell whether there is a linear layer, on rows of images: no plan goes on with a convolution behind it."""
    return any(step.operation.name.endswith("linear") for step in group)


def _rounds(step: Step) -> bool:
    """Tell whether no plan holds the layer."""
    return step.operation.name == "dynamic_qlinear"


def _is_whole(group: list[Step]) -> bool:
    return group[0].operation.name == "quantize"


def _compiled(group: list[Step]) -> Any:
    """Return a function of an array for some nodes of a chain."""
    names = [step.operation.name for step in group]
    if _is_whole(group):
        layers = [step.layer() for step in group if step.operation.name in _CODES]
        ends_in_numbers = group[-1].output.dtype == "float32"
        if layers and ends_in_numbers and "flatten" not in names[-2:]:
            return _of_array(QuantizedModel(layers))
        return _of_array(nn.Sequential(*(step.layer() for step in group)))
    layers = [step.layer() for step in group]
    if any(isinstance(layer, SparseLinear | SparseConv2d) for layer in layers):
        dense = [layer.to_dense() if isinstance(layer, SparseLinear | SparseConv2d) else layer for layer in layers]
        return _of_array(to_sparse(nn.Sequential(*_known(dense)), SPARSE_FROM))
    if current_backend() == "numba":
        from tinytorch.acceleration.plan import Plan

        try:
            return Plan(nn.Sequential(*_known(layers)), group[0].inputs[0].shape[1:])
        except ValueError:  # layers in an order that a plan cannot hold
            pass
    return _of_array(nn.Sequential(*layers))


def _known(layers: list[nn.Module]) -> list[nn.Module]:
    """Put nn.Flatten where the graph has one: it is what other chapters know."""
    from tinytorch.benchmarks.tinymlperf.operations.floats import Flatten

    return [nn.Flatten() if isinstance(layer, Flatten) else layer for layer in layers]


def _of_array(model: nn.Module) -> Any:
    return lambda x: model(Tensor(x)).data
