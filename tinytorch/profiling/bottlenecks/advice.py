"""What to try against a bottleneck, and the chapter that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tinytorch.profiling.bottlenecks.verdict import PRICE_BAND, Verdict, Work
from tinytorch.profiling.dispatch import Kind
from tinytorch.profiling.operation import Array, Operation

ACCELERATION = "chapters/15_acceleration/acceleration"
QUANTIZATION = "chapters/16_quantization/quantization"
COMPRESSION = "chapters/17_compression/compression"
CACHING = "chapters/18_caching/caching"
PROFILING = "chapters/19_profiling/profiling"

NEAR_THE_ROOF = 0.9
OF_CALLS = 0.1  # with less than this the price of calls is not what an overhead-bound operation waits for


class Advice(NamedTuple):
    """What to try, and the page of the book that shows how, from its root and without an ending."""

    text: str
    link: str

    def __str__(self) -> str:
        return f"{self.text} ({self.link})"


LARGER_CALLS = Advice("fewer and larger calls: a larger batch, or a `Plan` if it takes the network", ACCELERATION)
LARGER_BATCH = Advice("fewer and larger calls: a larger batch", ACCELERATION)
COMPILED = Advice('leave the interpreter: `backend("numba")`, or whole arrays at a time', ACCELERATION)
FUSION = Advice("go over memory once: a fused kernel, or the backend that has one", ACCELERATION)
REUSE = Advice("write into memory that is there already: allocate once, as a `Plan` does", ACCELERATION)
NEIGHBOURS = Advice("do it in the same pass as its neighbour", ACCELERATION)
FEWER_BYTES = Advice("move fewer bytes: a smaller dtype", QUANTIZATION)
BETTER_KERNEL = Advice("a better kernel: another backend, its tiles and vectors", ACCELERATION)
FEWER_OPERATIONS = Advice("compute less: prune what changes little", COMPRESSION)
NARROW = Advice("more operations in an instruction: int8", QUANTIZATION)
CACHE = Advice("compute each position once: a KV cache", CACHING)
FORMULA = Advice("count it: register a formula with `tinytorch.profiling.counts`", PROFILING)


def advise(work: Work, verdict: Verdict, kind: Kind, repeats: bool = False) -> tuple[Advice, ...]:
    """Return what to try first, second, ... against what `judge` found.

    At the roof no better kernel helps, only fewer operations or bytes do. `repeats`: the profile computes the same
    positions of a sequence again and again.
    """
    calls = LARGER_CALLS if kind == "forward" else LARGER_BATCH
    if verdict == "overhead-bound":
        return (calls,) if work.price_share > OF_CALLS else (COMPILED,)
    if verdict == "ambiguous" and work.price_share > PRICE_BAND[0]:
        return (calls, FUSION)
    again = (CACHE,) if repeats and kind == "forward" else ()
    near = work.efficiency >= NEAR_THE_ROOF
    if verdict == "memory-bound":
        return (*again, FEWER_BYTES, NEIGHBOURS) if near else (*again, FUSION, REUSE if work.far else FEWER_BYTES)
    if near:
        return (*again, FEWER_OPERATIONS, NARROW if verdict == "compute-bound" else FEWER_BYTES)
    if verdict == "compute-bound":
        return (*again, BETTER_KERNEL, FUSION if work.far else FEWER_OPERATIONS)
    return (*again, BETTER_KERNEL)


def repeats_positions(operations: Iterable[Operation]) -> bool:
    """Tell whether attention is computed for sequences that grow by one position, all of them each time.

    That is what generation without a cache looks like: with one, there is one query, and only the keys grow.
    """
    lengths: dict[tuple[object, ...], set[int]] = {}
    for operation in operations:
        x = operation.inputs[0] if operation.inputs else None  # queries (..., T, C)
        is_attention = operation.kind == "forward" and operation.function.__name__.endswith("Attention")
        if is_attention and isinstance(x, Array) and len(x.shape) >= 2:
            lengths.setdefault((operation.function, *x.shape[:-2], x.shape[-1]), set()).add(x.shape[-2])
    return any({length + 1, length + 2} <= known for known in lengths.values() for length in known)
