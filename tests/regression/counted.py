"""What is counted of each model and kernel: whole numbers that are the same on every machine.

Names are "what, which form of it/unit". Everything is for one image, or one text, unless the name says otherwise.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch import Tensor, backend, data, nn, no_grad, optim, zoo
from tinytorch.acceleration import CacheHierarchy, Plan
from tinytorch.caching import PUBLISHED, QuantizedKVCache, WindowKVCache
from tinytorch.compression import BreakEven, sparse_linears, study, to_sparse
from tinytorch.kernels import int8
from tinytorch.kernels.backend import compiled
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling import FLOPCounter, MemoryProfiler
from tinytorch.quantization import INT8Quantizer, quantize_dynamic
from tinytorch.zoo.sparse_files import stored_bytes

Counts = dict[str, int]
TEXT = 128  # tokens
ALWAYS = BreakEven(0.0, 0.0)  # sparse whatever this machine would choose


def counts() -> Counts:
    """Count everything."""
    with backend("numba"):
        found = training()
        with no_grad():
            return found | images() | texts() | caches() | misses()


def images() -> Counts:
    """The networks for images: as they are, in one plan, in whole numbers, without zeros, with fewer filters."""
    found: Counts = {}
    for name in ("reference_cnn", "anomaly_autoencoder"):
        model = zoo.load(name)
        found |= _module(name, model) | _plan(f"{name}, plan", model) | _int8(f"{name}, int8", model)
    for name in ("global_90", "adaptive_90"):
        found |= _sparse(f"reference_cnn, sparse {name}", study.load(name))
    for name in ("filters_50", "physical_70", "low_rank"):
        found |= _module(f"reference_cnn, {name}", study.load(name))
    found |= _plan("reference_cnn, filters_50, plan", study.load("filters_50"))
    return found | _int8("reference_cnn, filters_50, int8", study.load("filters_50"))


def _module(name: str, model: nn.Module) -> Counts:
    x = Tensor(np.zeros((1, 1, 28, 28), np.float32))
    with FLOPCounter(model, strict=True) as counter:
        model(x)
    with MemoryProfiler(model) as memory:
        model(x)
    return {
        f"{name}/flops": counter.total.flops,
        f"{name}/stored bytes": sum(map(stored_bytes, model.state_dict().values())),
        f"{name}/peak activation bytes": memory.peak["activations"],
    }


def _plan(name: str, model: nn.Sequential) -> Counts:
    """What the compiled loops will do: rows that pooling drops are not computed."""
    plan = Plan(*_of_vectors(model))
    sizes = [[int(step[size]) for size in ("rows", "columns", "channels", "kernel", "run")] for step in plan._table]
    sizes += [[int(layer["inputs"]), int(layer["outputs"])] for layer in plan._layers]
    return {
        f"{name}/flops": 2 * sum(map(math.prod, sizes)),
        f"{name}/peak activation bytes": 4 * (plan._size + 2 * plan._widest),
    }


def _of_vectors(model: nn.Sequential) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Return a model without the Flatten that it may begin with, and the shape of what it then takes."""
    if isinstance(model[0], nn.Flatten):
        return nn.Sequential(*list(model)[1:]).eval(), (28 * 28,)
    return model, (1, 28, 28)


def _int8(name: str, model: nn.Sequential) -> Counts:
    model, shape = _of_vectors(model)
    seen = data.fashion_mnist("train").images[:20].reshape(20, *shape)  # no size depends on what is seen
    rounded = INT8Quantizer().calibrate(model, seen, progress=False).convert(model)
    program = compiled("int8").Program(int8.Network([layer.spec() for layer in rounded.layers], shape), "generic")
    with FLOPCounter(rounded, strict=True) as counter:
        rounded(seen[:1])
    return {
        f"{name}/flops": counter.total.flops,
        f"{name}/bytes moved": counter.total.bytes,
        f"{name}/stored bytes": sum(map(stored_bytes, rounded.state_dict().values())),
        f"{name}/peak activation bytes": program._size + 2 * (program._widest + 4),
    }


def _sparse(name: str, model: nn.Sequential) -> Counts:
    made = to_sparse(model, ALWAYS)
    with FLOPCounter(made, strict=True) as counter:
        made(np.zeros((1, 1, 28, 28), np.float32))
    return {
        f"{name}/flops": counter.total.flops,
        f"{name}/bytes moved": counter.total.bytes,
        f"{name}/bytes in memory": made.nbytes,
        f"{name}/stored bytes": sum(map(stored_bytes, model.state_dict().values())),
    }


def texts() -> Counts:
    """The GPT: a text at once, one token behind the others in a cache, and both with weights of 8 bits, or few."""
    found: Counts = {}
    model, few = zoo.load("char_gpt"), sparse_linears(study.load_text(90), ALWAYS)
    forms = ("char_gpt", model), ("char_gpt, dynamic int8", quantize_dynamic(model)), ("char_gpt, sparse 90", few)
    for name, made in forms:
        ids = np.zeros((1, TEXT), np.int64)
        cache = nn.KVCache.of(made)
        made(ids[:, 1:], cache)
        with FLOPCounter(made, strict=True) as whole:
            made(ids)
        with FLOPCounter(made, strict=True) as step:
            made(ids[:, :1], cache)
        with MemoryProfiler(made) as memory:
            made(ids)
        cache.truncate(TEXT - 1)
        with MemoryProfiler(made, caches=[cache]) as remembering:
            made(ids[:, :1], cache)
        found |= {
            f"{name}, {TEXT} tokens/flops": whole.total.flops,
            f"{name}, {TEXT} tokens/peak activation bytes": memory.peak["activations"],
            f"{name}, cached step/flops": step.total.flops,
            f"{name}, cached step/bytes moved": step.total.bytes,
            f"{name}, cached step/peak activation bytes": remembering.peak["activations"],
            f"{name}/stored bytes": sum(map(stored_bytes, made.state_dict().values())),
        }
    return found


def training() -> Counts:
    """One step of training the CNN with 32 images."""
    model = zoo.reference_cnn(np.random.default_rng(0))
    optimizer = optim.AdamW(model.parameters())
    x, y = Tensor(np.zeros((32, 1, 28, 28), np.float32)), np.zeros(32, np.int64)

    def step() -> None:
        cross_entropy(model(x), y).backward()
        optimizer.step()

    with FLOPCounter(model, strict=True) as counter:
        step()
    with MemoryProfiler(model, optimizer) as memory:
        step()
    name = "reference_cnn, training step of 32 images"
    return {f"{name}/flops": counter.total.flops, f"{name}/peak activation bytes": memory.peak["activations"]}


def caches() -> Counts:
    """Bytes of keys and values."""
    model = zoo.load("char_gpt")
    window = WindowKVCache(batch_size=1, window=60, sinks=4, num_layers=4, num_kv_heads=4, head_dim=32)
    found = {
        "char_gpt, KVCache/bytes": nn.KVCache.of(model).nbytes,
        "char_gpt, KVCache of 8 texts/bytes": nn.KVCache.of(model, 8).nbytes,
        "char_gpt, QuantizedKVCache/bytes": QuantizedKVCache.of(model).nbytes,
        "char_gpt, WindowKVCache of 4 and 60/bytes": window.nbytes,
    }
    return found | {f"{s.name}, KV cache/bytes": s.kv_cache_bytes(s.max_seq_len) for s in PUBLISHED.values()}


def misses() -> Counts:
    """Misses of the simulated caches for each order of the loops of a matrix product."""
    found: Counts = {}
    cache = CacheHierarchy()
    for n in (64, 96, 128):
        for nest, tile in (("naive", None), ("reordered", None), ("tiled", 16), ("tiled", 32)):
            counted = cache.matmul(nest, n, tile_size=tile)
            name = f"matmul {nest}{tile or ''}, {n} x {n}"
            found |= {f"{name}/{level} misses": int(count) for level, count in counted.misses.items()}
            found[f"{name}/accesses"] = counted.accesses
    return found
