"""What can be done to the reference CNN and to the GPT: each with what it takes, what it needs, and what it excludes.

The strengths are mild, so that nothing has to be trained on: what is done in earnest, with weights that were trained on
afterwards, stands in `accuracy.py`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

from tests.integration import predictions
from tinytorch import data, nn, zoo
from tinytorch.acceleration import Plan
from tinytorch.benchmarks.tinymlperf.execution import SPARSE_FROM
from tinytorch.caching import QuantizedKVCache, WindowKVCache
from tinytorch.compression import (
    MagnitudePruner,
    SparseConv2d,
    SparseLinear,
    SparseModel,
    factorize,
    prune_filters,
    to_sparse,
)
from tinytorch.nn.fuse import fuse_conv_bn
from tinytorch.quantization import DynamicQuantizedLinear, INT8Quantizer, QuantizedModel, quantize_dynamic

Model = Any
Refusal = tuple[type[Exception], str]  # the error, and what its message says

FILTERS, ENERGY, ZEROS = 0.07, 0.98, 0.5  # of the CNN
TEXT_ENERGY, TEXT_ZEROS = 0.97, 0.2  # of the GPT
# what a step may lose that was not trained on; without filters much is lost; nats: as the competition allows
WITHOUT_FILTERS, POINTS, NATS = 8.0, 2.5, 0.03


@dataclass(frozen=True)
class Optimisation:
    """One thing to do to a model.

    Attributes
    ----------
    words
        What it is.
    apply
        Model -> model; the one that is given stays as it is.
    gives
        The kind of model that comes out (see `kind`).
    expected
        Float model -> the float model whose outputs the result has to give, computed in another way.
    tolerance
        How far an output may be from that, relative to the largest one.
    lost
        Points of accuracy, or nats, that it may cost; 0 where the outputs stay what they were.
    needs
        What comes before it, if it shall be worth anything.
    refuses
        The kinds of model that it does not take, with the error.
    leaves
        The kinds of model that it has nothing to do for.
    why
        The reason of both.
    """

    words: str
    apply: Callable[[Model], Model]
    gives: str
    expected: Callable[[Model], Model]
    tolerance: float
    lost: float = 0.0
    needs: str | None = None
    refuses: Mapping[str, Refusal] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()
    why: str = ""


def kind(model: Model) -> str:
    """Tell what a model consists of: that decides what can be done to it."""
    if isinstance(model, Plan):
        return "plan"
    if isinstance(model, SparseModel):
        return "sparse model"
    if isinstance(model, QuantizedModel):
        return "whole numbers"
    if any(isinstance(layer, DynamicQuantizedLinear) for layer in model.modules()):
        return "whole layers"
    if any(isinstance(layer, SparseLinear | SparseConv2d) for layer in model.modules()):
        return "sparse layers"
    return "layers"


def as_it_is(model: Model) -> Model:
    """Return the model: what was done to it must not change what it says."""
    return model


# The steps


def fused(model: nn.Sequential) -> nn.Sequential:
    """Return the model with each batch norm in the convolution before it; a model without any is returned itself."""
    if isinstance(model, Plan) or not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()):
        return model
    layers: list[nn.Module] = []
    for _, layer in model.named_layers():
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn(layers[-1], layer)  # type: ignore[arg-type]
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


def pruned(sparsity: float, model: Model) -> Model:
    """Return a copy whose smallest weights are zero."""
    model = copy.deepcopy(model) if isinstance(model, nn.Module) else model
    return MagnitudePruner(sparsity).prepare(model).finalize().eval()


def without_zeros(model: Model) -> Model:
    """Return a copy whose convolutions and linear layers do not store their zeros."""
    if not isinstance(model, nn.Sequential):
        return SparseLinear.from_dense(model)  # it says what it is made of
    return nn.Sequential(*(_without_zeros(layer) for _, layer in model.named_layers())).eval()


def _without_zeros(layer: Any) -> nn.Module:
    if isinstance(layer, nn.Conv2d | SparseConv2d):
        return SparseConv2d.from_dense(layer)  # type: ignore[arg-type]
    if isinstance(layer, nn.Linear | SparseLinear | DynamicQuantizedLinear):
        return SparseLinear.from_dense(layer)  # type: ignore[arg-type]
    return copy.deepcopy(layer)


def quantized(model: Model) -> QuantizedModel:
    """Return a CNN in whole numbers of 8 bits."""
    return INT8Quantizer().calibrate(model, calibration(), progress=False).convert(model)


def text_thin(model: nn.GPT) -> nn.GPT:
    """Return a copy whose feed-forward layers are pairs of thin ones."""
    return _with_mlps(model, partial(factorize, energy=TEXT_ENERGY))


def text_without_zeros(model: nn.GPT) -> nn.GPT:
    """Return a copy whose feed-forward layers do not store their zeros; attention keeps its own."""
    return _with_mlps(model, without_zeros)


def _with_mlps(model: nn.GPT, change: Callable[[Any], Any]) -> nn.GPT:
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.mlp = change(block.mlp)
    return model.eval()


@cache
def calibration() -> np.ndarray:
    """Return images that no test uses."""
    return data.fashion_mnist("train").images[:256]


# The table

_ENDS = ("sparse model", "whole numbers", "plan")
_SEQUENTIAL = "in an nn.Sequential only, not in a {}: wrap its layers in one, or take the model that it was made of"
_NOTHING_TO_PRUNE = "nothing to prune: no convolution or linear layer is left.*prune before"
_TYPES = {"sparse model": "SparseModel", "whole numbers": "QuantizedModel", "plan": "Plan"}


def _refused(error: type[Exception], message: str, kinds: tuple[str, ...] = _ENDS) -> dict[str, Refusal]:
    """Return one refusal for several kinds; {} in the message stands for the class of the model."""
    return {name: (error, message.replace("{}", _TYPES.get(name, ""))) for name in kinds}


CNN: dict[str, Optimisation] = {
    "fuse": Optimisation(
        "batch norm in the convolution before it", fused, "layers", as_it_is, 1e-4,
        refuses={"sparse layers": (TypeError, r"fold_batch_norm takes an nn.Conv2d, not SparseConv2d: fold before")},
        leaves=_ENDS,
        why="the weights of what is sparse are fixed; all that runs as a whole has its batch norm in the weights",
    ),
    "filters": Optimisation(
        "fewer filters", lambda model: prune_filters(model, FILTERS).eval(), "layers",
        partial(predictions.silenced, ratio=FILTERS), 1e-4, lost=WITHOUT_FILTERS,
        refuses=_refused(ValueError, r"removed from an nn.Sequential only, .*this is a {}")
        | {"sparse layers": (ValueError, r"SparseConv2d\(.*\) at '0': channels cannot be followed through it")},
        why="a filter goes together with what reads its channel: that has to be known, and to be changed",
    ),
    "low_rank": Optimisation(
        "linear layers of low rank", lambda model: factorize(model, ENERGY).eval(), "layers",
        partial(predictions.of_low_rank, energy=ENERGY), 1e-4, lost=POINTS,
        refuses=_refused(ValueError, r"replaced in an nn.Sequential only; this is a {}")
        | {"sparse layers": (ValueError, "nothing to factorize: the model has no nn.Linear")},
        why="the factors come from all weights, in float32",
    ),
    "zeros": Optimisation(
        "half of the weights zero", partial(pruned, ZEROS), "layers",
        partial(predictions.zeroed, sparsity=ZEROS), 1e-4, lost=POINTS,
        refuses=_refused(ValueError, _NOTHING_TO_PRUNE, ("sparse layers", "sparse model", "whole numbers"))
        | {"plan": (TypeError, "a pruner takes an nn.Module, not Plan")},
        why="weights are pruned while they can be changed",
    ),
    "sparse_layers": Optimisation(
        "layers that skip zeros", without_zeros, "sparse layers", as_it_is, 1e-4, needs="zeros",
        refuses=_refused(TypeError, r"SparseLinear is made of an nn.Linear, not {}")
        | {"sparse layers": (TypeError, r"SparseConv2d is made of an nn.Conv2d, not SparseConv2d")},
        why="they are made of float layers",
    ),
    "to_sparse": Optimisation(
        "a network that skips zeros", partial(to_sparse, threshold=SPARSE_FROM), "sparse model", as_it_is, 1e-4,
        needs="zeros",
        refuses=_refused(ValueError, _SEQUENTIAL)
        | {"sparse layers": (ValueError, "nothing to make sparse: the model has no convolution and no linear layer")},
        why="it is made of float layers, whose sums it orders anew",
    ),
    "quantize": Optimisation(
        "whole numbers of 8 bits", quantized, "whole numbers", as_it_is, 0.05, lost=0.5,
        refuses=_refused(ValueError, _SEQUENTIAL)
        | {"sparse layers": (ValueError, r"SparseConv2d\(.*\) at '0' cannot be quantized there")},
        why="there is no kernel that skips zeros among whole numbers; a plan is for float32",
    ),
    "plan": Optimisation(
        "one compiled call", partial(Plan, input_shape=(1, 28, 28)), "plan", as_it_is, 1e-4,
        refuses=_refused(ValueError, _SEQUENTIAL)
        | {"sparse layers": (ValueError, r"a plan cannot hold SparseConv2d\(.*\) at '0'")},
        why="what is sparse or in whole numbers is one compiled call already; a plan is for float32",
    ),
}  # fmt: skip

_NO_LINEAR = "nothing to factorize: the model has no nn.Linear"

GPT: dict[str, Optimisation] = {
    "low_rank": Optimisation(
        "feed-forward layers of low rank", text_thin, "layers",
        partial(predictions.of_low_rank_text, energy=TEXT_ENERGY), 1e-4, lost=NATS,
        refuses={name: (ValueError, _NO_LINEAR) for name in ("sparse layers", "whole layers")},
        why="the factors come from all weights, in float32",
    ),
    "zeros": Optimisation(
        "a fifth of the weights zero", partial(pruned, TEXT_ZEROS), "layers",
        partial(predictions.zeroed, sparsity=TEXT_ZEROS), 1e-4, lost=NATS,
        refuses={"whole layers": (ValueError, _NOTHING_TO_PRUNE)},
        why="weights are pruned while they can be changed; those of layers that are not sparse yet can",
    ),
    "sparse_layers": Optimisation(
        "feed-forward layers that skip zeros", text_without_zeros, "sparse layers", as_it_is, 1e-4, needs="zeros",
        refuses={
            "sparse layers": (TypeError, "SparseLinear is made of an nn.Linear, not SparseLinear"),
            "whole layers": (TypeError, "SparseLinear is made of an nn.Linear, not DynamicQuantizedLinear"),
        },
        why="they are made of float layers",
    ),
    "quantize": Optimisation(
        "whole numbers of 8 bits, rows rounded when they come", quantize_dynamic, "whole layers", as_it_is, 0.1,
        lost=0.01, refuses={"whole layers": (ValueError, "is in whole numbers already: give the float model")},
        why="codes have no codes of their own; layers without zeros stay as they are beside the others",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """What a GPT remembers of a text, one of several ways: they exclude one another, for there is one memory.

    Attributes
    ----------
    words
        What it is.
    make
        Model, number of texts -> an empty cache.
    option
        How `export` calls it, with what else it takes.
    position
        Bytes of one position of one text.
    lost
        Nats that it may cost.
    """

    words: str
    make: Callable[[nn.GPT, int], Any]
    option: Mapping[str, Any]
    position: int
    lost: float


WINDOW, SINKS = 124, 4


def _window(model: nn.GPT, batch: int) -> WindowKVCache:
    return WindowKVCache.of(model, batch, window=WINDOW, sinks=SINKS)


MEMORIES: dict[str, Memory] = {
    "cache": Memory("keys and values", nn.KVCache.of, {"cache": "float32"}, 4 * 2 * 128 * 4, 0.0001),
    "cache_int8": Memory("the same, of 8 bits", QuantizedKVCache.of, {"cache": "int8"}, 4 * 2 * (128 + 4), 0.01),
    "window": Memory(
        f"of {SINKS} first and {WINDOW} last positions", _window,
        {"cache": "window", "window": WINDOW, "sinks": SINKS}, 4 * 2 * 128 * 4, NATS,
    ),
}  # fmt: skip

NOT_FOR_A_GPT: dict[str, tuple[Callable[[Model], Model], Refusal, str]] = {
    "filters": (
        lambda model: prune_filters(model, FILTERS), (ValueError, "nn.Sequential only, .* this is a GPT"),
        "it has no filters; a head of attention shares its channels with all blocks, by the residual stream",
    ),
    "low_rank": (
        lambda model: factorize(model, ENERGY), (ValueError, "nn.Sequential only; this is a GPT"),
        "blocks are no sequence; their feed-forward layers are, and can be factorized",
    ),
    "quantize": (
        quantized, (ValueError, _SEQUENTIAL.replace("{}", "GPT")),
        "the ranges of a residual stream are not those of images: rows are rounded when they come",
    ),
    "plan": (
        partial(Plan, input_shape=(256,)), (ValueError, _SEQUENTIAL.replace("{}", "GPT")),
        "a step behind a KVCache is one compiled call without any",
    ),
}  # fmt: skip

NOT_FOR_A_CNN: dict[str, tuple[Callable[[Model], Any], Refusal, str]] = {
    name: (
        partial(lambda make, model: make(model, 1), kind_of_cache.of), (TypeError, "a cache is for an nn.GPT, not Seq"),
        "a cache holds keys and values, and an image has neither",
    )
    for name, kind_of_cache in (("cache", nn.KVCache), ("cache_int8", QuantizedKVCache))
}  # fmt: skip


@cache
def reference(name: str) -> Model:
    """Return a model of the zoo, once: nothing here may change it."""
    return zoo.load({"cnn": "reference_cnn", "gpt": "char_gpt"}[name])


def pairs(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every ordered pair, that of one with itself among them."""
    return list(itertools.product(table, repeat=2))
